"""Due times: a heap, so that a tick looks only at what is due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Timers:
    """One due time a (kind, key); setting a later one than is set changes nothing."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str, str]] = []
        self._due: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def at(self, due_s: float, kind: str, key: str) -> None:
        """Ask for (kind, key) at ``due_s``, unless it is due sooner already."""
        set_for = self._due.get((kind, key))
        if set_for is None or due_s < set_for:
            self._due[kind, key] = due_s
            heapq.heappush(self._heap, (due_s, kind, key))

    def cancel(self, kind: str, key: str) -> None:
        self._due.pop((kind, key), None)

    def take(self, now_s: float) -> Iterator[tuple[str, str]]:
        """Give out everything due by now, soonest first; it is not set any more."""
        while (due := self.next_s()) is not None and due <= now_s:
            _, kind, key = heapq.heappop(self._heap)
            del self._due[kind, key]
            yield kind, key

    def next_s(self) -> float | None:
        """Return the soonest due time, or None when nothing is set."""
        while self._heap:
            due, kind, key = self._heap[0]
            if self._due.get((kind, key)) == due:
                return due
            heapq.heappop(self._heap)
        return None


class Backoff:
    """Delays a key, doubling from ``first_s`` to ``max_s`` until it is forgotten."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._last: dict[str, float] = {}

    def next(self, key: str) -> float:
        """Return how long to wait for ``key`` this time."""
        last = self._last.get(key)
        delay = self._first_s if last is None else min(last * 2, self._max_s)
        self._last[key] = delay
        return delay

    def forget(self, key: str) -> None:
        self._last.pop(key, None)
