"""What witnesses say, and what the ledger finds wrong with it."""

from __future__ import annotations

import pytest

from galaxy.testing.chaos.witness_log import WitnessLog, WitnessMessage, parse


def said(
    kind: str = "count", *, count: int = 0, pid: int = 7, started: int = 1, index: int = 0
) -> WitnessMessage:
    return WitnessMessage(kind, "job", f"job-1.{index}", index, started, count, pid)


def heard(*messages: WitnessMessage, allowed: int = 0) -> WitnessLog:
    ledger = WitnessLog()
    for _ in range(allowed):
        ledger.allow("job")
    for at_s, message in enumerate(messages):
        ledger.hear(message, float(at_s))
    return ledger


def test_message_of_a_witness_is_read_and_anything_else_is_not() -> None:
    assert parse(b"count job job-1.0 0 1 5", 7) == said(count=5)
    for data in (b"", b"count job", b"shout job job-1.0 0 1 5", b"count job job-1.0 zero 1 5", b"\xff" * 9):
        assert parse(data, 7) is None


def test_steady_count_is_all_right() -> None:
    ledger = heard(*(said(count=n) for n in (1, 2, 3)))
    assert ledger.wrong == []
    assert ledger.counted("job") == 3


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ((said(count=1), said(count=3)), "job.0 went from 1 to 3"),
        ((said(count=5),), "job.0 was first heard at 5"),
        ((said(count=1), said(count=1, pid=8)), "job.0 began again as process 8, and had counted to 1"),
        ((said("copy"),), "a second copy of job.0 ran, as process 7"),
        ((said("began"), said("done"), said("began")), "the batch job ran more than once: began done began"),
    ],
)
def test_broken_promise_is_found(messages: tuple[WitnessMessage, ...], wrong: str) -> None:
    assert heard(*messages).wrong == [wrong]


def test_allowed_restart_is_all_right_once_and_its_predecessor_must_be_silent() -> None:
    first, second = said(count=1), said(count=1, pid=8, started=9)
    assert heard(first, second, allowed=1).wrong == []
    late = heard(first, second, said(count=2), allowed=1)
    assert late.wrong == ["process 7 of job.0 counts on beside its successor 8"]


def test_silent_and_loud_replicas_are_named() -> None:
    ledger = heard(said(count=1, index=0), said(count=1, index=1))
    assert ledger.silent("job", 3, now_s=1.5, within_s=1.0) == [0, 2]
    assert ledger.loud("job", 1, now_s=1.5, within_s=1.0) == [1]
    assert ledger.loud("job", 1, now_s=5.0, within_s=1.0) == []
