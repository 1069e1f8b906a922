"""The change feed as a standby reads it: late, cut off, read twice, and trimmed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from galaxy.driver.interfaces import FeedPosition, FeedRead
from galaxy.errors import Unreachable
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.world import World


class FaultyFeed:
    """The feed of one standby. Its random numbers are its own, so that other faults do not depend on it."""

    def __init__(self, nexus: MemoryNexus, world: World, reader: str) -> None:
        self.random = random.Random(f"{world.seed} {reader}")  # noqa: S311 - choices must be reproducible
        self._nexus = nexus
        self._world = world

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        if self._strikes("feed_trimmed"):
            self._nexus.trim_feed(role, self.random.randint(0, 3))
        if self._strikes("feed_cut"):
            raise Unreachable("cut off")
        read = self._nexus.read_changes(role, after, timeout_s)
        if self._strikes("feed_doubled"):
            raise Unreachable("the answer is lost")
        return read

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        if self._strikes("feed_cut"):
            raise Unreachable("cut off")
        return self._nexus.read_rows(role, table, accept)

    def late_s(self) -> float:
        """Return how much later than planned the next read is, in seconds."""
        return self.random.uniform(0.0, self._world.faults.late_s) if self._strikes("feed_late") else 0.0

    def _strikes(self, fault: str) -> bool:
        if self.random.random() >= getattr(self._world.faults, fault):
            return False
        self._world.fault_counts[fault] += 1
        return True
