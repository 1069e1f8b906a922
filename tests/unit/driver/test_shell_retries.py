"""How long a leader's shell waits before it tries to lead again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import pytest

from galaxy.driver.interfaces import Grant, Publish
from galaxy.driver.leadership import CommittedStep
from galaxy.driver.shell import RETRY_MAX_S, RETRY_MIN_S, LeaderShell
from galaxy.driver.stored_format import StoredFormat
from galaxy.errors import Unreachable
from galaxy.model.api.answers import Answer, Reply
from galaxy.model.base import encode
from galaxy.model.step import Send
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Count, Tally


class Waits:
    """Stands for the event that ends a shell: records each wait, and is set after ten."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def is_set(self) -> bool:
        return len(self.waits_s) >= 10

    def wait(self, timeout_s: float) -> bool:
        self.waits_s.append(timeout_s)
        return self.is_set()


class Replying(MemoryNexus):
    """Notes the answers, after failing as often as ``failures`` says."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(lambda: 100.0)
        self.failures = failures
        self.answered: list[str] = []

    def reply(self, replies: Sequence[Reply]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unreachable("no answer")
        self.answered += [reply.reply for reply in replies]


def delivered(nexus: Replying, publish: Publish) -> None:
    """Have a shell deliver one message and one answer."""
    shell = LeaderShell(role="tally", owner="a", address="a", logic=Tally(), nexus=nexus, publish=publish)
    send = Send(queue="q", task="t", body=Count(name="x", total=1), id="i")
    shell._deliver(CommittedStep(sends=(send,), replies=(Reply(reply="r", answer=Answer(key="k")),)))


@pytest.mark.parametrize("error", [Unreachable("no answer"), ValueError("a bug")])
def test_failed_publish_does_not_skip_the_answers_of_its_tick(error: Exception) -> None:
    nexus = Replying()

    def publish(sends: Sequence[Send]) -> None:
        raise error

    delivered(nexus, publish)
    assert nexus.answered == ["r"]


def test_failed_answer_does_not_skip_the_messages_of_its_tick() -> None:
    sent: list[str] = []
    delivered(Replying(failures=1), lambda sends: sent.extend(send.id for send in sends))
    assert sent == ["i"]


def test_leader_whose_steps_always_raise_leads_again_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logic = Tally()
    logic.broken = True
    shell = LeaderShell(
        role="tally",
        owner="a",
        address="a",
        logic=logic,
        nexus=MemoryNexus(time.time),
        publish=lambda _: None,
    )
    waits = Waits()
    monkeypatch.setattr(shell, "_stopping", waits)
    monkeypatch.setattr("galaxy.driver.leadership.FAILURE_WAIT_S", 0.0)
    shell._run()
    assert (waits.waits_s[0], waits.waits_s[-1]) == (RETRY_MIN_S, RETRY_MAX_S)


def test_state_that_cannot_be_read_is_tried_again_ever_more_slowly_and_the_log_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nexus = MemoryNexus(lambda: 100.0)
    grant = nexus.campaign("tally", "old", ttl_s=1000.0, address="old")
    assert isinstance(grant, Grant)
    old = TableChange(table="format", key="tables", value=encode(StoredFormat(format=1)))
    nexus.commit(grant, 1, [old], [])
    nexus.release(grant)
    shell = LeaderShell(
        role="tally", owner="a", address="a", logic=Tally(), nexus=nexus, publish=lambda _: None
    )
    waits = Waits()
    monkeypatch.setattr(shell, "_stopping", waits)
    with caplog.at_level(logging.WARNING):
        shell._run()
    assert waits.waits_s[0] == RETRY_MIN_S
    assert waits.waits_s[-1] == RETRY_MAX_S
    assert "run the release that wrote the state" in caplog.text
