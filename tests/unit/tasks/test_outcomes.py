"""Which event ends the task of a request, and when."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from galaxy.model.api.answers import Answer, Problem, Reply
from galaxy.tasks import outcomes as module
from galaxy.tasks.outcomes import Outcomes

REFUSED = Problem(kind="refused", message='quota of user "ads" exceeded')


class Sent:
    """Records the events that are sent, after as many errors as ``failures`` says."""

    def __init__(self, failures: int = 0) -> None:
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.failures = failures

    def __call__(self, kind: str, **fields: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the broker is away")
        self.events.put((kind, fields))

    def next(self) -> tuple[str, str, str]:
        kind, fields = self.events.get(timeout=10)
        return kind, fields["uuid"], str(fields.get("exception", ""))


def reply(to: str, problem: Problem | None = None) -> Reply:
    return Reply(reply=to, answer=Answer(key="k", problem=problem))


def test_request_that_waits_for_the_leader_ends_with_its_answer_and_not_with_its_handler() -> None:
    outcomes, sent = Outcomes(), Sent()
    outcomes.attach(sent)
    outcomes.await_answer("t1", "r1")
    outcomes.await_answer("t2", "r2")
    assert outcomes.on_return("t1") is None
    outcomes.answered([reply("r2"), reply("r1", REFUSED), reply("another client")])
    assert sent.next() == ("task-succeeded", "t2", "")
    assert sent.next() == ("task-failed", "t1", 'refused: quota of user "ads" exceeded')
    assert outcomes.on_return("t2") is None
    assert sent.events.empty()


def test_request_that_its_handler_answers_ends_with_the_handler() -> None:
    outcomes = Outcomes()
    outcomes.await_answer("t1", "r1")
    outcomes.returned("t1", "r1", REFUSED)
    kind, fields = outcomes.on_return("t1") or ("", {})
    assert (kind, fields["exception"]) == ("task-failed", 'refused: quota of user "ads" exceeded')
    assert outcomes.on_return("another task") == ("task-succeeded", {"result": "'done'"})


def test_repeated_request_is_announced_once_for_each_answer() -> None:
    outcomes, sent = Outcomes(), Sent()
    outcomes.attach(sent)
    outcomes.await_answer("t1", "r1")
    outcomes.await_answer("t1", "r1")
    assert [outcomes.on_return("t1"), outcomes.on_return("t1")] == [None, None]
    outcomes.answered([reply("r1"), reply("r1")])
    assert sent.next() == ("task-succeeded", "t1", "")
    assert sent.events.empty()


def test_error_of_the_broker_loses_one_event_only() -> None:
    outcomes, sent = Outcomes(), Sent(failures=1)
    outcomes.attach(sent)
    for number in (1, 2):
        outcomes.await_answer(f"t{number}", f"r{number}")
    outcomes.answered([reply("r1"), reply("r2")])
    assert sent.next() == ("task-succeeded", "t2", "")


def test_requests_without_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAITED_MAX", 10)
    outcomes, sent = Outcomes(), Sent()
    outcomes.attach(sent)
    for number in range(100):
        outcomes.await_answer(f"t{number}", f"r{number}")
    outcomes.answered([reply(f"r{number}") for number in range(100)])
    assert [sent.next()[1] for _ in range(10)] == [f"t{number}" for number in range(90, 100)]
    assert sent.events.empty()
