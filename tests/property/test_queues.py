"""A worker counts and drops malformed items of its queues, and handles the next valid message."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import encode
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders
from galaxy.model.step import Send
from galaxy.nexus.publisher import Publisher
from tests.property.effort import PROCESSES_S, examples
from tests.property.hostile_messages import hostile
from tests.property.test_wire import STRANGE, places, put
from tests.support.agent_node import RECEIVED
from tests.support.malformed_messages import call_of, celery_headers, celery_item, galaxy_item
from tests.support.redis_server import RedisServer, running_server
from tests.support.tally_node import Node, running_node

KINDS = {
    names.CONTAINER_APPLY: ("agent.h1", ContainerOrders),
    names.POD_DEPLOY: ("appworker.h1", PodOrders),
    names.LOG_SESSION: ("appworker.h1", LogSession),
    names.EXEC_SESSION: ("appworker.h1", ExecSession),
}


class Agent:
    """A real agent's worker on a real Redis, whose service records what reaches it."""

    def __init__(self, server: RedisServer, node: Node) -> None:
        self.node = node
        self.client = redis.Redis.from_url(server.url, socket_timeout=30)
        self.publisher = Publisher(server.url, name="tester")
        self._checks = 0
        self._read = 0

    def new_log(self) -> str:
        """Return what was logged since the last call."""
        log = self.node.log()
        new, self._read = log[self._read :], len(log)
        return new

    def push(self, queue: str, data: bytes) -> None:
        self.client.lpush(queue, data)

    def check_serving(self) -> None:
        """Assert that a valid order on each queue still arrives."""
        self._checks += 1
        valid = f"valid-{self._checks}"
        for queue, task, body in (
            (
                "agent.h1",
                names.CONTAINER_APPLY,
                ContainerOrders(agent=valid, epoch=1, until_s=0.0),
            ),
            ("appworker.h1", names.POD_DEPLOY, PodOrders(agent=valid, epoch=1, until_s=0.0)),
        ):
            self.publisher.publish([Send(queue=queue, task=task, body=body, id=f"{task}:{self._checks}")])
        missing = 2
        while missing:
            received = self.client.blpop([RECEIVED], timeout=25)
            assert received is not None, f"no order arrives any more:\n{self.node.log()[-3000:]}"
            missing -= json.loads(received[1])[2].get("agent") == valid
        assert self.node.process.poll() is None


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with running_server() as server, running_node(server.url, "h1", "tests.support.agent_node") as node:
        node.await_log("event=worker.ready", 60.0)
        agent = Agent(server, node)
        yield agent
        agent.publisher.close()
        agent.client.close()


@st.composite
def items(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw an item for one of the agent's queues with a malformed struct, call, envelope or encoding."""
    task = draw(st.sampled_from(sorted(KINDS)))
    queue, kind = KINDS[task]
    plain = json.loads(encode(draw(hostile(kind))))
    where = draw(st.sampled_from(["struct", "call", "item", "bytes"]))
    if where == "struct":
        plain = put(plain, draw(st.sampled_from(places(plain))), draw(STRANGE))
    call: Any = call_of(plain)
    if where == "call":
        call = put(call, draw(st.sampled_from(places(call)[:12])), draw(STRANGE))
    shape = draw(st.sampled_from([celery_item, galaxy_item]))
    data = shape(call, queue=queue, headers=celery_headers(task))
    if where == "item":
        item = json.loads(data)
        data = json.dumps(put(item, draw(st.sampled_from(places(item))), draw(STRANGE))).encode()
    if where == "bytes":
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return queue, data


@examples(25, slow_s=PROCESSES_S)
@given(st.lists(items(), min_size=1, max_size=15))
def test_no_items_keep_a_worker_from_handling_the_next_valid_message(
    agent: Agent, drawn: list[tuple[str, bytes]]
) -> None:
    for queue, data in drawn:
        agent.push(queue, data)
    agent.check_serving()
    logged = agent.new_log()
    assert "Traceback" not in logged, logged


def test_unknown_task_is_counted_without_a_traceback_and_without_its_body(agent: Agent) -> None:
    agent.new_log()
    for shape in (celery_item, galaxy_item):
        item = shape(call_of("s3cret"), queue="agent.h1", headers=celery_headers("no.such.task"))
        agent.push("agent.h1", item)
    agent.check_serving()
    logged = agent.new_log()
    assert "cause=unknown-task" in logged
    assert "Traceback" not in logged and "s3cret" not in logged


def test_dropped_message_is_counted_by_cause(agent: Agent) -> None:
    call = call_of({"agent": float("nan")})
    for shape in (celery_item, galaxy_item):
        item = shape(call, queue="agent.h1", headers=celery_headers(names.CONTAINER_APPLY))
        agent.push("agent.h1", item)
    agent.check_serving()
    assert "event=message.dropped" in agent.node.log()
    for queue in ("agent.h1", "appworker.h1"):
        assert agent.client.llen(queue) == 0
    end_s = time.monotonic() + 30  # The last acknowledgement may follow its effect.
    while left := agent.client.hgetall("agent@h1.unacked"):
        assert time.monotonic() < end_s, left
        threading.Event().wait(0.05)
