"""Waiting for what nobody tells a test, and telling a slow product from a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.patience import PATIENCE

T = TypeVar("T")

TRIES = 3


def until(what: str, true: Callable[[], T], timeout_s: float = 30.0, *, every_s: float = 0.1) -> T:
    """Ask until ``true`` is: nobody tells a test from outside. Returns what it said."""
    deadline_s = time.monotonic() + timeout_s * PATIENCE
    while True:
        said = true()
        if said:
            return said
        assert time.monotonic() < deadline_s, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(every_s)


def soon(what: str, limit_s: float, attempt: Callable[[], float | None]) -> float:
    """Return how long the first attempt took that kept to ``limit_s``; at most ``TRIES`` are made.

    What is too slow is too slow each time; a busy machine is not. An attempt that returns None is
    timed as a whole.
    """
    seen_s: list[float] = []
    for _ in range(TRIES):
        began_s = time.monotonic()
        said_s = attempt()
        seen_s.append(time.monotonic() - began_s if said_s is None else said_s)
        if seen_s[-1] < limit_s:
            return seen_s[-1]
    shown = ", ".join(f"{took_s:.2f}" for took_s in seen_s)
    raise AssertionError(f"{what}: not within {limit_s:g} s in {TRIES} attempts: {shown}")
