"""Exponential back-off: waits that double from a first one up to a maximum.

Nothing here reads a clock. ``now_s`` is the time of any clock, in seconds; the caller always uses the same.
"""

from __future__ import annotations

import math
from typing import Final

_EXPONENT_MAX: Final = 62
"""Every maximum is below 2**62 first waits; a larger power would only cost time."""


def delay_after(failures: int, *, first_s: float, max_s: float = math.inf) -> float:
    """Return the wait after the ``failures``-th failure in a row, counted from 1."""
    return float(min(first_s * 2 ** min(failures - 1, _EXPONENT_MAX), max_s))


class Backoff:
    """The wait before the next try of one operation."""

    __slots__ = ("_next_s", "first_s", "max_s")

    def __init__(self, first_s: float, max_s: float) -> None:
        self.first_s = first_s
        self.max_s = max_s
        self._next_s = first_s

    def next_s(self, *, at_most_s: float = math.inf) -> float:
        """Return how long to wait now; the next wait is twice as long, up to ``max_s``."""
        wait_s = min(self._next_s, at_most_s)
        self._next_s = min(2 * wait_s, self.max_s)
        return wait_s

    def reset(self) -> None:
        """Start again from the first wait, after a success."""
        self._next_s = self.first_s


class Retry:
    """When to retry an operation that failed, and when to stop.

    After ``tries_max`` consecutive failures there is no further try until a caller allows one.
    """

    def __init__(self, *, first_s: float, max_s: float, tries_max: int) -> None:
        self.tries_max = tries_max
        self.failures = 0
        self._backoff = Backoff(first_s, max_s)
        self._due_s = 0.0

    @property
    def given_up(self) -> bool:
        """Whether there is no further try without ``allow_one_more`` or ``try_now``."""
        return self.failures >= self.tries_max

    def wait_s(self, now_s: float) -> float | None:
        """Return the seconds until the next try, 0.0 when it is due, None after giving up."""
        return None if self.given_up else max(0.0, self._due_s - now_s)

    def failed(self, now_s: float) -> None:
        """Count a failure; the next try is due after the next wait."""
        self._due_s = now_s + self._backoff.next_s()
        self.failures = min(self.failures + 1, self.tries_max)

    def succeeded(self) -> None:
        """Reset after a success."""
        self.failures, self._due_s = 0, 0.0
        self._backoff.reset()

    def allow_one_more(self) -> None:
        """Allow one more try after giving up, not before the last wait is over."""
        self.failures = min(self.failures, self.tries_max - 1)

    def try_now(self) -> None:
        """Make the next try due at once, also after giving up."""
        self.allow_one_more()
        self._due_s = 0.0


class KeyedBackoff:
    """One back-off per key; a key without one starts with ``first_s``."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._backoffs: dict[str, Backoff] = {}

    def next_s(self, key: str) -> float:
        """Return how long to wait for ``key`` this time."""
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = self._backoffs[key] = Backoff(self._first_s, self._max_s)
        return backoff.next_s()

    def reset(self, key: str) -> None:
        """Start ``key`` again from the first wait, and free its memory."""
        self._backoffs.pop(key, None)


class AskLimiter:
    """Limits how often each key is asked for something.

    The pause after each ask of a key doubles from ``first_s`` up to ``max_s``. A key that is not asked
    for ``max_s`` after it became due starts again from ``first_s``, and is dropped after a while, so
    that keys which are never asked again take no memory.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self.first_s = first_s
        self.max_s = max_s
        self._asked: dict[str, tuple[float, float]] = {}
        self._size_max = 64

    def __len__(self) -> int:
        return len(self._asked)

    def due(self, key: str, now_s: float) -> bool:
        """Return whether ``key`` is asked now, and count it as asked if so."""
        due_s, wait_s = self._asked.get(key, (now_s, self.first_s))
        if now_s < due_s:
            return False
        if now_s - due_s > self.max_s:
            wait_s = self.first_s
        self._asked[key] = (now_s + wait_s, min(self.max_s, 2 * wait_s))
        if len(self._asked) > self._size_max:
            self._drop_expired(now_s)
        return True

    def reset(self, key: str) -> None:
        """Let ``key`` be asked at once, and start again from the first wait."""
        self._asked.pop(key, None)

    def _drop_expired(self, now_s: float) -> None:
        self._asked = {key: asked for key, asked in self._asked.items() if now_s - asked[0] <= self.max_s}
        self._size_max = max(64, 2 * len(self._asked))
