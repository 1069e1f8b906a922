"""Logs of a process: one line per event to stderr, ``event=... key=value``."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from galaxy.driver.trace_lines import TraceLines
from galaxy.model.redaction import without_credentials

LINE_MAX: Final = 4000
"""Longest line, in characters, so that foreign messages cannot fill a disk."""


class OneLine(logging.Formatter):
    """Time in UTC, level, the message; tracebacks and newlines folded in, credentials of URLs masked.

    The only message of several lines is ``TraceLines``, whose events have one line each.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, TraceLines):
            head = f"{self.formatTime(record)} {record.levelname} "
            return "\n".join([_one_line(head + line) for line in record.msg.lines])
        if record.name.split(".")[0] != "galaxy":
            record = logging.makeLogRecord(
                {
                    **record.__dict__,
                    "msg": f"event=log logger={record.name} text={record.getMessage()!r}",
                    "args": (),
                }
            )
        return _one_line(super().format(record))


def _one_line(text: str) -> str:
    line = without_credentials(text.replace("\n", "\\n"))
    if len(line) <= LINE_MAX:
        return line
    half = LINE_MAX // 2  # The end of a traceback says most.
    return f"{line[:half]} ...({len(line) - LINE_MAX} more)... {line[-half:]}"


def set_up(level: str) -> None:
    """Send every log record of ``level`` and above to stderr; Celery's own from warning up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("celery", "kombu", "amqp", "redis"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
