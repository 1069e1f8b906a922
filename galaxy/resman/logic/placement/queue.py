"""The groups that wait for placement on any agent, in the order in which they take their turns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice


class PlacementQueue:
    """Groups by priority; within a priority, each has one turn before any has its next."""

    def __init__(self) -> None:
        self._priority_of: dict[str, int] = {}
        self._lines: dict[int, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._priority_of)

    def __contains__(self, group: object) -> bool:
        return group in self._priority_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._priority_of)

    def add(self, group: str, priority: int) -> None:
        """Add ``group`` behind the others of its priority; a group that waits already keeps its turn."""
        if self._priority_of.get(group) != priority:
            self.drop(group)
            self._priority_of[group] = priority
            self._lines.setdefault(priority, {})[group] = None

    def drop(self, group: str) -> None:
        """Remove ``group`` if it waits."""
        priority = self._priority_of.pop(group, None)
        if priority is not None:
            line = self._lines[priority]
            del line[group]
            if not line:
                del self._lines[priority]

    def move_back(self, group: str) -> None:
        """Let the others of its priority take their turns before ``group``, which waits, has its next."""
        line = self._lines[self._priority_of[group]]
        del line[group]
        line[group] = None

    def priorities(self) -> list[int]:
        """Return the priorities of the groups that wait, most important (lowest) first."""
        return sorted(self._lines)

    def first(self, priority: int, count: int) -> list[str]:
        """Return the next ``count`` groups of ``priority``."""
        return list(islice(self._lines.get(priority, ()), count))
