"""Polling for conditions, and time limits that a busy machine does not fail by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.patience import PATIENCE

T = TypeVar("T")

TRIES = 3


def until(what: str, condition: Callable[[], T], timeout_s: float = 30.0, *, every_s: float = 0.1) -> T:
    """Call ``condition`` until its result is true, and return that result.

    The failure names ``what`` and the last result.
    """
    deadline_s = time.monotonic() + timeout_s * PATIENCE
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline_s, f"not in {timeout_s:.0f} s: {what} (last: {result!r})"
        time.sleep(every_s)


def soon(what: str, limit_s: float, attempt: Callable[[], float | None]) -> float:
    """Return the duration of the first attempt that took less than ``limit_s``, of at most ``TRIES``.

    A slow product is slow in every attempt; a busy machine is not. ``attempt`` returns its own
    duration in seconds, or None to have the call timed.
    """
    took_s: list[float] = []
    for _ in range(TRIES):
        began_s = time.monotonic()
        own_s = attempt()
        took_s.append(time.monotonic() - began_s if own_s is None else own_s)
        if took_s[-1] < limit_s:
            return took_s[-1]
    shown = ", ".join(f"{one_s:.2f}" for one_s in took_s)
    raise AssertionError(f"{what}: not within {limit_s:g} s in {TRIES} attempts: {shown}")
