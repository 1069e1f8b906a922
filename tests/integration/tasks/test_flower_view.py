"""Workers answer the questions that Flower asks: names, queues and tasks."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from galaxy.model.api.request import Request
from galaxy.model.messages import names
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.step import Send
from galaxy.nexus import Nexus, keys
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


class Events:
    """Collects the events of all workers from its creation until it is closed."""

    def __init__(self, celery: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(celery,), daemon=True)
        self._thread.start()
        # The receiver subscribes some time after its start, so events of its own tell when it listens.
        with celery.events.default_dispatcher() as dispatcher:

            def is_listening() -> bool:
                dispatcher.send("test-listening")
                return bool(self.seen)

            until("events are received", is_listening)

    def _run(self, celery: Any) -> None:
        with celery.connection() as connection:
            receiver = celery.events.Receiver(connection, handlers={"*": self.seen.append})
            with receiver.consumer_context() as (listening, _, _):
                while not self._closed.is_set():
                    with contextlib.suppress(TimeoutError):
                        listening.drain_events(timeout=0.2)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10)

    def of(self, task_id: str) -> list[dict[str, Any]]:
        return [event for event in self.seen if event.get("uuid") == task_id]

    def await_end(self, task_id: str) -> dict[str, Any]:
        """Return the event with which a task ends; there must be one only."""
        ends = ("task-succeeded", "task-failed")

        def found() -> list[dict[str, Any]]:
            return [event for event in self.of(task_id) if event["type"] in ends]

        until(f"{task_id} ends", found)
        threading.Event().wait(0.3)  # For an event that must not come.
        (end,) = found()
        return end


@pytest.fixture
def events(celery: Any, leader: Node) -> Iterator[Events]:
    events = Events(celery)
    yield events
    events.close()


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


def test_reports_that_a_leader_takes_are_counted_and_are_no_tasks(
    locked_redis_server: RedisServer, celery: Any, leader: Node, events: Events
) -> None:
    with Nexus.connect(locked_redis_server.url, name="t") as nexus:
        for agent in ("h1", "h2"):
            assert nexus.post_report("tally", AgentReport(agent=agent, boot="b", serial=1))
        nexus.client.set(keys.report("tally", "h3"), "nonsense")
        nexus.client.zadd(keys.reporting("tally"), {"h3": 1.0})

    def counts() -> dict[str, int]:
        stats = ask(celery, "stats")["tally@h1"]
        return dict(stats["broker"]["transport_options"]["reports"])

    eventually(lambda: (counts()["taken"], counts()["refused"]), (2, 1))
    assert [event for event in events.seen if event["type"].startswith("task-")] == []


def test_settings_are_reported_without_the_password(celery: Any, leader: Node) -> None:
    text = json.dumps(ask(celery, "conf"))
    assert "open-sesame" not in text
    assert "json" in text
    assert ask(celery, "stats")["tally@h1"]["pool"]["max-concurrency"] == 4


def test_request_that_is_refused_is_a_task_that_failed_with_the_reason(
    locked_redis_server: RedisServer, events: Events
) -> None:
    publisher = Publisher(locked_redis_server.url, name="t")
    cases: list[tuple[str, str, Any, str]] = [
        ("galaxy.job.show", "", {"job": "web"}, ""),
        ("galaxy.agent.list", "", {}, ""),
        ("galaxy.job.show", "mallory", {"job": "web"}, "refused: not you"),
        ("galaxy.cluster.status", "", {}, "not-found: no cluster"),
        ("galaxy.job.show", "", {"job": 7}, "bad-message: not a"),
    ]
    for number, (op, user, body, reason) in enumerate(cases):
        task_id = f"{op}:{number}"
        request = Request(op=op, key=str(number), reply=f"r{number}", deadline_s=1e12, user=user, body=body)
        publisher.publish([Send(queue="tally", task=op, body=request, id=task_id)])
        end = events.await_end(task_id)
        assert end["hostname"] == "tally@h1" and end["runtime"] is not None
        if reason:
            assert end["type"] == "task-failed" and end["exception"].startswith(reason), end
        else:
            assert (end["type"], end["result"]) == ("task-succeeded", "'done'"), end
        assert events.of(task_id)[0]["args"] == ("('web')" if body == {"job": "web"} else "()")
    publisher.close()


def test_events_of_a_task_do_not_contain_its_payload(locked_redis_server: RedisServer, celery: Any) -> None:
    orders = ContainerOrders(agent="a-secret-name", epoch=1, until_s=0.0)
    with running_node(locked_redis_server.url, "h1", "tests.support.agent_node") as agent:
        agent.await_log("event=worker.ready")
        events = Events(celery)
        publisher = Publisher(locked_redis_server.url, name="t")
        try:
            publisher.publish(
                [Send(queue="agent.h1", task=names.CONTAINER_APPLY, body=orders, id="create:x:1")]
            )
            assert events.await_end("create:x:1")["type"] == "task-succeeded"
        finally:
            publisher.close()
            events.close()
    (received,) = [event for event in events.of("create:x:1") if event["type"] == "task-received"]
    assert received["name"] == "galaxy.container.apply"
    assert received["kwargs"].startswith("<ContainerOrders, ")
    assert "a-secret-name" not in json.dumps(events.seen)
