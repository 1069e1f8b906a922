"""Looking again and again at what nobody tells of: processes, directories."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.patience import PATIENCE


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is so; fail when it takes too long."""
    deadline = time.monotonic() + 30 * PATIENCE
    while not true():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


def name(pid: int) -> str:
    """Return what a process calls itself, empty if there is none of this pid."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
