"""Messages of witnesses, and the violations that the log finds in them."""

from __future__ import annotations

import pytest

from galaxy.testing.chaos.witness_log import WitnessLog, WitnessMessage, parse


def message(
    kind: str = "count", *, count: int = 0, pid: int = 7, started: int = 1, index: int = 0
) -> WitnessMessage:
    return WitnessMessage(kind, "job", f"job-1.{index}", index, started, count, pid)


def log_of(*messages: WitnessMessage, restarts_allowed: int = 0) -> WitnessLog:
    log = WitnessLog()
    for _ in range(restarts_allowed):
        log.allow_restart("job")
    for at_s, one in enumerate(messages):
        log.record(one, float(at_s))
    return log


def test_message_of_a_witness_is_parsed_and_other_bytes_are_not() -> None:
    assert parse(b"count job job-1.0 0 1 5", 7) == message(count=5)
    for data in (b"", b"count job", b"shout job job-1.0 0 1 5", b"count job job-1.0 zero 1 5", b"\xff" * 9):
        assert parse(data, 7) is None


def test_steady_count_is_no_violation() -> None:
    log = log_of(*(message(count=n) for n in (1, 2, 3)))
    assert log.violations == []
    assert log.counted("job") == 3


@pytest.mark.parametrize(
    ("messages", "violation"),
    [
        ((message(count=1), message(count=3)), "job.0 went from 1 to 3"),
        ((message(count=5),), "the first message of job.0 had count 5"),
        (
            (message(count=1), message(count=1, pid=8)),
            "job.0 restarted as process 8; it had counted to 1",
        ),
        ((message("duplicate"),), "a second copy of job.0 ran, as process 7"),
        (
            (message("started"), message("finished"), message("started")),
            "batch job job ran more than once: started finished started",
        ),
    ],
)
def test_broken_promise_is_a_violation(messages: tuple[WitnessMessage, ...], violation: str) -> None:
    assert log_of(*messages).violations == [violation]


def test_allowed_restart_is_no_violation_once_and_the_old_process_must_stop_counting() -> None:
    first, second = message(count=1), message(count=1, pid=8, started=9)
    assert log_of(first, second, restarts_allowed=1).violations == []
    late = log_of(first, second, message(count=2), restarts_allowed=1)
    assert late.violations == ["process 7 of job.0 still counts although 8 has replaced it"]


def test_replicas_that_do_not_count_and_those_that_should_not_are_listed() -> None:
    log = log_of(message(count=1, index=0), message(count=1, index=1))
    assert log.not_counting("job", 3, now_s=1.5, within_s=1.0) == [0, 2]
    assert log.still_counting("job", 1, now_s=1.5, within_s=1.0) == [1]
    assert log.still_counting("job", 1, now_s=5.0, within_s=1.0) == []
