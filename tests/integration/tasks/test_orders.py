"""An agent's worker: two queues of its own, orders decoded by type, malformed messages dropped."""

from __future__ import annotations

import json
import signal
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from galaxy.model.api.sessions import ExecIn, ExecSession, LogSession, ReadLogs
from galaxy.model.base import Struct
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders, DestroyContainer
from galaxy.model.messages.pod import PodOrders
from galaxy.model.step import Send
from galaxy.nexus import Nexus
from galaxy.nexus.publisher import Publisher
from tests.support.agent_node import RECEIVED
from tests.support.malformed_messages import malformed_items
from tests.support.redis_server import RedisServer
from tests.support.tally_node import Node, running_node
from tests.support.waiting import within_limit


class Orderer:
    """Sends orders to agents, and reads those that a recording agent received."""

    def __init__(self, url: str) -> None:
        self.nexus = Nexus.connect(url, name="orderer")
        self.publisher = Publisher(url, name="orderer")

    def send(self, queue: str, task: str, body: Struct) -> None:
        self.publisher.publish([Send(queue=queue, task=task, body=body, id="order")])

    def received(self, timeout_s: float = 60.0) -> tuple[float, str, dict[str, object]] | None:
        """Return (time, type, order) of the next order that an agent received."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            item = self.nexus.client.blpop([RECEIVED], timeout=1)
            if item is not None:
                when_s, kind, order = json.loads(item[1])
                return when_s, kind, order
        return None


@pytest.fixture
def orderer(redis_server: RedisServer) -> Iterator[Orderer]:
    orderer = Orderer(redis_server.url)
    yield orderer
    orderer.publisher.close()
    orderer.nexus.close()


@pytest.fixture
def agent(redis_server: RedisServer) -> Iterator[Node]:
    with running_node(redis_server.url, "h1", "tests.support.agent_node") as node:
        node.await_log("event=worker.ready")
        yield node


def test_every_kind_of_order_reaches_the_agent_as_its_type(agent: Node, orderer: Orderer) -> None:
    own, workers = names.agent_queue("h1"), names.appworker_queue("h1")
    orders: list[tuple[str, str, Struct]] = [
        (own, names.CONTAINER_APPLY, ContainerOrders(agent="h1", epoch=3, until_s=0.0, report=True)),
        (workers, names.POD_DEPLOY, PodOrders(agent="h1", epoch=4, until_s=0.0, report=True)),
        (own, names.LOG_SESSION, LogSession(session="s", pod="web-1.0", read=ReadLogs(target="web-1"))),
        (
            workers,
            names.EXEC_SESSION,
            ExecSession(session="s", pod="web-1.0", exec=ExecIn(pod="web-1.0", argv=("ls",))),
        ),
    ]
    for queue, task, order in orders:
        orderer.send(queue, task, order)
        received = orderer.received()
        assert received is not None
        assert received[1] == type(order).__name__


def test_order_reaches_the_agent_within_milliseconds(agent: Node, orderer: Orderer) -> None:
    times_ms = []
    for _ in range(100):
        start_s = time.time()
        orderer.send(
            names.agent_queue("h1"), names.CONTAINER_APPLY, ContainerOrders(agent="h1", epoch=1, until_s=0.0)
        )
        received = orderer.received()
        assert received is not None
        times_ms.append((received[0] - start_s) * 1000)
    print(f"\npublish to handler: median {statistics.median(times_ms):.2f} ms, worst {max(times_ms):.2f} ms")
    assert statistics.median(times_ms) < 50


def test_agent_does_not_consume_the_orders_of_another(agent: Node, orderer: Orderer) -> None:
    orderer.send(
        names.agent_queue("h2"), names.CONTAINER_APPLY, ContainerOrders(agent="h2", epoch=1, until_s=0.0)
    )
    orderer.send(
        names.agent_queue("h1"), names.CONTAINER_APPLY, ContainerOrders(agent="h1", epoch=2, until_s=0.0)
    )
    received = orderer.received()
    assert received is not None and received[2]["epoch"] == 2
    assert orderer.nexus.client.llen("agent.h2") == 1


def test_malformed_messages_in_either_queue_do_not_stop_the_agent(agent: Node, orderer: Orderer) -> None:
    for queue, task in (("agent.h1", names.CONTAINER_APPLY), ("appworker.h1", names.POD_DEPLOY)):
        for what, data in malformed_items(queue, task):
            if len(data) > 1_000_000:
                continue
            for _ in range(4):  # More than there are prefetch slots.
                orderer.nexus.client.lpush(queue, data)
            orderer.send("agent.h1", names.CONTAINER_APPLY, ContainerOrders(agent="h1", epoch=1, until_s=0.0))
            assert orderer.received() is not None, f"after {what}:\n{agent.log()[-3000:]}"
    assert agent.process.poll() is None
    assert orderer.nexus.client.llen(RECEIVED) == 0


def test_orders_for_a_stopped_agent_wait_for_it(redis_server: RedisServer, orderer: Orderer) -> None:
    orders = ContainerOrders(
        agent="h1", epoch=1, until_s=0.0, destroy=(DestroyContainer(container="web-1.0", incarnation=1),)
    )
    orderer.send(names.agent_queue("h1"), names.CONTAINER_APPLY, orders)
    with running_node(redis_server.url, "h1", "tests.support.agent_node"):
        received = orderer.received()
    assert received is not None and received[2]["destroy"] == [{"container": "web-1.0", "incarnation": 1}]


def test_agent_recovers_by_itself_when_redis_comes_back(
    redis_server: RedisServer, agent: Node, orderer: Orderer
) -> None:
    redis_server.stop()
    threading.Event().wait(1.0)  # Long enough for the worker's first tries to fail.
    redis_server.start()
    start_s = time.monotonic()
    orderer.send(
        names.agent_queue("h1"), names.CONTAINER_APPLY, ContainerOrders(agent="h1", epoch=9, until_s=0.0)
    )
    received = orderer.received()
    print(f"\nback after {time.monotonic() - start_s:.2f} s")
    assert received is not None and received[2]["epoch"] == 9


def test_agent_that_gets_sigterm_stops_its_service_and_exits_within_two_seconds(
    redis_server: RedisServer, orderer: Orderer
) -> None:
    def stop() -> float:
        orderer.nexus.client.delete("stopped")
        with running_node(redis_server.url, "h1", "tests.support.agent_node") as agent:
            agent.await_log("event=worker.ready")
            start_s = time.monotonic()
            agent.signal(signal.SIGTERM)
            assert agent.wait() == 0
            took_s = time.monotonic() - start_s
        assert orderer.nexus.client.llen("stopped") == 1
        return took_s

    print(f"\nexit of an agent: {within_limit('exit', 2.5, stop):.2f} s")


def test_idle_agent_has_few_connections_and_sends_few_commands(agent: Node, orderer: Orderer) -> None:
    """Ten thousand agents multiply these numbers."""
    mine = [c for c in orderer.nexus.client.client_list() if c["name"] == "agent@h1"]
    assert len(mine) <= 8

    def processed() -> int:
        return int(orderer.nexus.client.info("stats")["total_commands_processed"])

    spent = []
    while not spent or (spent[-1] >= 20 and len(spent) < 5):  # On a busy machine it may still be starting.
        before = processed()
        threading.Event().wait(2.0)
        spent.append(processed() - before)
    print(f"\n{len(mine)} connections, {spent[-1] / 2:.1f} commands a second")
    assert spent[-1] < 20, spent
