"""What is due when: debts that are presented again and again, each time after a longer wait."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class ResendTimers:
    """Keys with a time each, and the earliest of them at hand.

    A key that comes due stays, and comes due again after a wait that doubles from ``first_s``
    up to ``most_s``; with a first wait of 0 it comes due once.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self._due: dict[str, tuple[float, float]] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def start(self, key: str, due_s: float) -> None:
        """Let ``key`` come due at ``due_s``, with its waits begun afresh."""
        self._set(key, due_s, self.first_s)

    def hurry(self, key: str, now_s: float) -> None:
        """Let ``key`` come due now, unless it was presented less than a first wait ago."""
        due = self._due.get(key)
        if due is not None and due[0] > now_s and due[1] > 2 * self.first_s:
            self._set(key, now_s, self.first_s)

    def rest(self, key: str, now_s: float) -> None:
        """Let ``key``, which is known to be in hand, come due after the longest wait only."""
        if key in self._due:
            self._set(key, now_s + self.most_s, self.most_s)

    def resume(self, old: ResendTimers, *, but: Iterable[str]) -> None:
        """Let each key but those in ``but`` come due when it would in ``old``, if it is known there."""
        known = {key: due for key, due in old._due.items() if key in self._due}
        for key in but:
            known.pop(key, None)
        for key, (due_s, wait_s) in known.items():
            self._set(key, due_s, wait_s)

    def stop(self, key: str) -> None:
        self._due.pop(key, None)

    def first(self, key: str) -> bool:
        """Return whether ``key`` has come due not more than once since it was started."""
        due = self._due.get(key)
        return due is None or due[1] <= 2 * self.first_s

    def next_s(self) -> float | None:
        """Return when the next key is due."""
        while self._heap:
            due_s, key = self._heap[0]
            if self._due.get(key, (None,))[0] == due_s:
                return due_s
            heapq.heappop(self._heap)
        return None

    def pop(self, now_s: float) -> list[str]:
        """Return the keys that are due, earliest first."""
        keys = []
        while (due_s := self.next_s()) is not None and due_s <= now_s:
            _, key = heapq.heappop(self._heap)
            keys.append(key)
            wait_s = self._due[key][1]
            if wait_s > 0:
                self._set(key, now_s + wait_s, min(self.most_s, 2 * wait_s))
            else:
                del self._due[key]
        return keys

    def _set(self, key: str, due_s: float, wait_s: float) -> None:
        self._due[key] = (due_s, wait_s)
        heapq.heappush(self._heap, (due_s, key))
        if len(self._heap) > 64 + 4 * len(self._due):  # Mostly times that no longer hold.
            self._heap = [(due[0], name) for name, due in self._due.items()]
            heapq.heapify(self._heap)


class AskLimiter:
    """How often something may be asked of somebody; a quiet time forgives, and is forgotten."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self._asked: dict[str, tuple[float, float]] = {}
        self._room = 64

    def __len__(self) -> int:
        return len(self._asked)

    def due(self, key: str, now_s: float) -> bool:
        """Return whether ``key`` may be asked now, and count it as asked if so."""
        due_s, wait_s = self._asked.get(key, (now_s, self.first_s))
        if now_s < due_s:
            return False
        if now_s - due_s > self.most_s:
            wait_s = self.first_s
        self._asked[key] = (now_s + wait_s, min(self.most_s, 2 * wait_s))
        if len(self._asked) > self._room:
            self._forget(now_s)
        return True

    def _forget(self, now_s: float) -> None:
        """Drop whoever is forgiven: a name that is never heard of again takes no place."""
        self._asked = {key: asked for key, asked in self._asked.items() if now_s - asked[0] <= self.most_s}
        self._room = max(64, 2 * len(self._asked))
