"""What Flower says every second is written every few minutes."""

from __future__ import annotations

import logging

from galaxy.web.quiet import PAUSE_S, Seldom


def record(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("flower.events", logging.ERROR, "events.py", 1, text, args, None)


def test_same_line_is_written_once_in_a_while_and_another_at_once() -> None:
    now = [1000.0]
    seldom = Seldom(lambda: now[0])
    failed = "Failed to capture events: '%s'"
    assert seldom.filter(record(failed, "MISCONF"))
    assert not seldom.filter(record(failed, "MISCONF"))
    assert seldom.filter(record(failed, "NOREPLICAS"))
    now[0] += PAUSE_S - 1
    assert not seldom.filter(record(failed, "NOREPLICAS"))
    now[0] += 1
    assert seldom.filter(record(failed, "NOREPLICAS"))
