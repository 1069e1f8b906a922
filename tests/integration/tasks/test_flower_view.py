"""Workers answer the questions that Flower asks: names, queues and tasks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.step import Send
from galaxy.nexus.publisher import Publisher
from tests.support.redis_server import RedisServer
from tests.support.tally_node import ADD, Node, running_node
from tests.support.waiting import until


@pytest.fixture
def celery(locked_redis_server: RedisServer) -> Iterator[Any]:
    app = Celery("flower", broker=locked_redis_server.url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def leader(locked_redis_server: RedisServer) -> Iterator[Node]:
    with running_node(locked_redis_server.url, "h1") as node:
        node.await_log("event=leader.leading")
        node.await_log("event=worker.ready")
        yield node


def ask(celery: Any, question: str) -> dict[str, Any]:
    """Ask until a worker answers; a busy one may answer too late."""
    inspected = celery.control.inspect(timeout=2.0)
    return dict(until(f"{question} is answered", lambda: getattr(inspected, question)()))


def eventually(read: Callable[[], Any], expected: Any) -> None:
    end_s = time.monotonic() + 30
    while (found := read()) != expected:
        assert time.monotonic() < end_s, found
        threading.Event().wait(0.05)


def test_leader_reports_the_queue_of_its_role_and_a_standby_reports_none(
    locked_redis_server: RedisServer, celery: Any, leader: Node
) -> None:
    with running_node(locked_redis_server.url, "h2") as standby:
        standby.await_log("event=worker.ready")

        def consumed() -> dict[str, list[str]]:
            return {
                node: [q["name"] for q in queues] for node, queues in ask(celery, "active_queues").items()
            }

        eventually(consumed, {"tally@h1": ["tally"], "tally@h2": []})


def test_handlers_are_registered_under_the_names_of_their_operations(celery: Any, leader: Node) -> None:
    registered = ask(celery, "registered")["tally@h1"]
    assert ADD in registered
    assert "galaxy.job.submit" in registered


def test_settings_are_reported_without_the_password(celery: Any, leader: Node) -> None:
    text = json.dumps(ask(celery, "conf"))
    assert "open-sesame" not in text
    assert "json" in text
    assert ask(celery, "stats")["tally@h1"]["pool"]["max-concurrency"] == 4


def test_events_of_a_task_do_not_contain_its_payload(locked_redis_server: RedisServer, celery: Any) -> None:
    seen: list[dict[str, Any]] = []
    done = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["type"] == "task-succeeded":
            done.set()
            receiver.should_stop = True

    def order() -> None:
        publisher = Publisher(locked_redis_server.url, name="t")
        orders = ContainerOrders(agent="a-secret-name", epoch=1, until_s=0.0)
        while not done.wait(0.3):  # Repeated, because the receiver may not be listening yet.
            publisher.publish(
                [Send(queue="agent.h1", task=names.CONTAINER_APPLY, body=orders, id="create:x:1")]
            )
        publisher.close()

    with running_node(locked_redis_server.url, "h1", "tests.support.agent_node") as agent:
        agent.await_log("event=worker.ready")
        thread = threading.Thread(target=order)
        with celery.connection() as connection:
            receiver = celery.events.Receiver(connection, handlers={"*": on_event})
            thread.start()
            try:
                receiver.capture(limit=None, timeout=60, wakeup=False)
            finally:
                done.set()
                thread.join(10.0)
    received = next(event for event in seen if event["type"] == "task-received")
    assert (received["uuid"], received["name"]) == ("create:x:1", "galaxy.container.apply")
    assert received["kwargs"].startswith("<ContainerOrders, ")
    assert "a-secret-name" not in json.dumps(seen)
