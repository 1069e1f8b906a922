"""Polling of processes and directories, which have no events."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.timeouts import TIMEOUT_FACTOR

POLL_S = 0.01


def wait_until(condition: Callable[[], bool]) -> None:
    """Call ``condition`` until it returns True; fail after 30 s."""
    deadline = time.monotonic() + 30 * TIMEOUT_FACTOR
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], POLL_S)


def process_name(pid: int) -> str:
    """Return a process' name from /proc/PID/comm, empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
