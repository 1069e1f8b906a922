"""Repeated lines of Flower's log are suppressed for a while."""

from __future__ import annotations

import logging

from galaxy.web.log_filter import REPEAT_AFTER_S, RepeatedLineFilter


def record(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("flower.events", logging.ERROR, "events.py", 1, text, args, None)


def test_repeated_line_is_written_after_a_pause_and_another_line_at_once() -> None:
    now = [1000.0]
    repeated = RepeatedLineFilter(lambda: now[0])
    failed = "Failed to capture events: '%s'"
    assert repeated.filter(record(failed, "MISCONF"))
    assert not repeated.filter(record(failed, "MISCONF"))
    assert repeated.filter(record(failed, "NOREPLICAS"))
    now[0] += REPEAT_AFTER_S - 1
    assert not repeated.filter(record(failed, "NOREPLICAS"))
    now[0] += 1
    assert repeated.filter(record(failed, "NOREPLICAS"))
