"""Due times by key in a heap, so that a tick looks only at what is due. Times are seconds of any clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
"""Keys with equal due times come due in key order, so that equal histories give equal results."""


class Timers(Generic[K]):
    """At most one due time per key."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []
        """Holds superseded times too: an entry is valid only while ``_due`` has the same time."""

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: object) -> bool:
        return key in self._due

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def due_s(self, key: K) -> float | None:
        """Return when ``key`` is due, None when it is not set."""
        return self._due.get(key)

    def set(self, key: K, due_s: float) -> None:
        """Make ``key`` due at ``due_s``, whether it was due sooner, later or not at all."""
        self._due[key] = due_s
        heapq.heappush(self._heap, (due_s, key))
        if len(self._heap) > 64 + 4 * len(self._due):  # Mostly superseded times.
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def set_if_sooner(self, key: K, due_s: float) -> None:
        """Make ``key`` due at ``due_s``, unless it is due sooner already."""
        current_s = self._due.get(key)
        if current_s is None or due_s < current_s:
            self.set(key, due_s)

    def cancel(self, key: K) -> None:
        """Unset ``key`` if it is set."""
        self._due.pop(key, None)

    def next_s(self) -> float | None:
        """Return the earliest due time, or None when nothing is set."""
        while self._heap:
            due_s, key = self._heap[0]
            if self._due.get(key) == due_s:
                return due_s
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now_s: float) -> Iterator[K]:
        """Unset and yield every key that is due, earliest first.

        The caller may set and cancel keys while it iterates.
        """
        while (due_s := self.next_s()) is not None and due_s <= now_s:
            _, key = heapq.heappop(self._heap)
            del self._due[key]
            yield key


class ResendTimers:
    """Due times of messages that are resent until they are acknowledged.

    A key that came due comes due again, after waits that double from ``first_s`` up to ``max_s``,
    until ``stop``. With a first wait of 0 it comes due once.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self.first_s = first_s
        self.max_s = max_s
        self._timers: Timers[str] = Timers()
        self._wait_s: dict[str, float] = {}
        """The wait that follows when a key comes due; same keys as ``_timers``."""

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._timers)

    def start(self, key: str, due_s: float) -> None:
        """Make ``key`` due at ``due_s``, and then after waits that start with the first one."""
        self._set(key, due_s, self.first_s)

    def make_due(self, key: str, now_s: float) -> None:
        """Make ``key`` due now, unless it has come due at most once since it was started."""
        due_s = self._timers.due_s(key)
        if due_s is not None and due_s > now_s and self._wait_s[key] > 2 * self.first_s:
            self._set(key, now_s, self.first_s)

    def restart(self, key: str, due_s: float) -> None:
        """Make ``key``, if it is set, due at ``due_s``; its waits start again with the first one."""
        if key in self._timers:
            self._set(key, due_s, self.first_s)

    def postpone(self, key: str, due_s: float) -> None:
        """Make ``key``, if it is set, due at ``due_s``; the wait that follows stays as it is."""
        if key in self._timers:
            self._timers.set(key, due_s)

    def slow_down(self, key: str, now_s: float) -> None:
        """Make ``key`` due after the longest wait: its receiver reports that it is working on it."""
        if key in self._timers:
            self._set(key, now_s + self.max_s, self.max_s)

    def resume(self, old: ResendTimers, *, but: Iterable[str]) -> None:
        """Give each key, except those in ``but``, the due time and wait that it has in ``old``."""
        skipped = set(but)
        for key in [key for key in old if key in self._timers and key not in skipped]:
            due_s = old._timers.due_s(key)
            assert due_s is not None
            self._set(key, due_s, old._wait_s[key])

    def stop(self, key: str) -> None:
        """Drop ``key``, for example because it was acknowledged."""
        self._timers.cancel(key)
        self._wait_s.pop(key, None)

    def is_first_send(self, key: str) -> bool:
        """Return whether ``key`` has come due at most once since it was started."""
        return self._wait_s.get(key, 0.0) <= 2 * self.first_s

    def next_s(self) -> float | None:
        """Return when the next key is due, or None when there is none."""
        return self._timers.next_s()

    def pop(self, now_s: float) -> list[str]:
        """Return the keys that are due, earliest first, and schedule them again."""
        keys = []
        for key in self._timers.pop_due(now_s):
            keys.append(key)
            wait_s = self._wait_s[key]
            if wait_s > 0:
                self._set(key, now_s + wait_s, min(self.max_s, 2 * wait_s))
            else:
                del self._wait_s[key]
        return keys

    def _set(self, key: str, due_s: float, wait_s: float) -> None:
        self._timers.set(key, due_s)
        self._wait_s[key] = wait_s
