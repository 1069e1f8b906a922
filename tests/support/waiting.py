"""Polling for conditions, and time limits that allow for a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.timeouts import TIMEOUT_FACTOR

T = TypeVar("T")

ATTEMPTS = 3


def until(what: str, condition: Callable[[], T], timeout_s: float = 30.0, *, every_s: float = 0.1) -> T:
    """Call ``condition`` until its result is true, and return that result.

    The failure names ``what`` and the last result.
    """
    deadline_s = time.monotonic() + timeout_s * TIMEOUT_FACTOR
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline_s, f"not in {timeout_s:.0f} s: {what} (last: {result!r})"
        time.sleep(every_s)


def within_limit(what: str, limit_s: float, attempt: Callable[[], float | None]) -> float:
    """Return the duration of the first attempt that takes less than ``limit_s``, of at most ``ATTEMPTS``.

    There are several, because a busy machine is slow in some of them and a slow product in all.
    ``attempt`` returns its own duration in seconds, or None to have the call timed.
    """
    took_s: list[float] = []
    for _ in range(ATTEMPTS):
        began_s = time.monotonic()
        own_s = attempt()
        took_s.append(time.monotonic() - began_s if own_s is None else own_s)
        if took_s[-1] < limit_s:
            return took_s[-1]
    shown = ", ".join(f"{one_s:.2f}" for one_s in took_s)
    raise AssertionError(f"{what}: not within {limit_s:g} s in {ATTEMPTS} attempts: {shown}")
