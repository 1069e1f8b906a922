"""Log lines: one for each event, with everything on it that a search needs."""

from __future__ import annotations

import io
import logging

from galaxy.driver.trace_lines import LINES_MAX, log_trace
from galaxy.model.messages.trace import TraceEvent
from galaxy.tasks.log import LINE_MAX, OneLine


def logged(*events: TraceEvent) -> list[str]:
    """Return the lines that a process writes about ``events``."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine())
    log = logging.Logger("galaxy.driver.leadership", logging.INFO)
    log.addHandler(handler)
    log_trace(log, events)
    return stream.getvalue().splitlines()


def test_each_event_of_a_step_has_a_line_with_time_and_level() -> None:
    count = 2 * LINES_MAX + 1
    lines = logged(*(TraceEvent(kind="pod.running", subject=f"web-1.{n}", id=f"e{n}") for n in range(count)))
    assert len(lines) == count
    for number, line in enumerate(lines):
        at, level, text = line.split(" ", 2)
        assert at.endswith("Z") and level == "INFO"
        assert text == f"event=pod.running subject=web-1.{number} text='' id=e{number} cause=-"


def test_event_with_newlines_has_one_line() -> None:
    (line,) = logged(TraceEvent(kind="pod.failed", subject="a\nb", text="c\nd", cause="e\nf"))
    assert "subject=a\\nb text='c\\nd'" in line
    assert line.endswith("cause=e\\nf")


def test_long_event_is_cut_and_the_others_are_not() -> None:
    long, short = logged(
        TraceEvent(kind="pod.failed", subject="a", text=2 * LINE_MAX * "x"),
        TraceEvent(kind="pod.failed", subject="b"),
    )
    assert LINE_MAX < len(long) < LINE_MAX + 100
    assert "subject=b" in short


def test_event_shows_no_credentials() -> None:
    (line,) = logged(TraceEvent(kind="pod.failed", subject="a", text="https://ann:secret@repo/x?token=t"))
    assert "https://***@repo/x?token=***" in line
    assert "secret" not in line


def test_events_below_the_level_are_not_written() -> None:
    log = logging.Logger("galaxy.driver.leadership", logging.WARNING)
    stream = io.StringIO()
    log.addHandler(logging.StreamHandler(stream))
    log_trace(log, [TraceEvent(kind="pod.running", subject="web-1.0")])
    assert not stream.getvalue()
