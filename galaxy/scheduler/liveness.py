"""Which agents are alive, suspect or dead, by the age of their heartbeats on Redis' clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.eligible import Floats, Ints, grown


class LivenessChanges(NamedTuple):
    """Rows whose status does not match the age of their last heartbeat."""

    recent: Ints
    """Suspect or dead rows with a recent heartbeat."""
    suspect: Ints
    """Rows that are not dead and have no recent heartbeat."""
    dead: Ints
    """Rows that are not dead and have had no heartbeat for ``dead_s``."""


class HeartbeatAges:
    """The last heartbeat of each row of the view, and since when they are read without a gap.

    While the reader or its Redis stands still, heartbeats are missed. So after a gap between two
    readings of more than ``gap_s_max``, no age counts from before the end of the gap.
    """

    def __init__(self, *, suspect_s: float, dead_s: float, gap_s_max: float) -> None:
        self.suspect_s = suspect_s
        self.dead_s = dead_s
        self.gap_s_max = gap_s_max
        self.read_s = 0.0
        """Redis' clock at the last reading."""
        self.gapless_since_s = 0.0
        """Redis' clock at the first reading after the last gap."""
        self._at_s: Floats = np.zeros(0)

    def begin_reading(self, now_s: float) -> None:
        """Begin a reading of all heartbeats at Redis' time ``now_s``."""
        if now_s - self.read_s > self.gap_s_max:
            self.gapless_since_s = now_s
        self.read_s = max(self.read_s, now_s)

    def record(self, rows: Sequence[int], at_s: Sequence[float]) -> None:
        """Record heartbeats, each row once."""
        top = max(rows, default=-1)
        if top >= len(self._at_s):
            self._at_s = grown(self._at_s, max(16, 2 * top + 1))
        index = np.array(rows, np.int64)
        self._at_s[index] = np.maximum(self._at_s[index], np.minimum(at_s, self.read_s))

    def forget(self, row: int) -> None:
        """Drop the heartbeat of ``row``, whose agent is forgotten."""
        if row < len(self._at_s):
            self._at_s[row] = 0.0

    def renumber(self, rows: Sequence[int]) -> None:
        """Give row ``n`` the heartbeat of the former row ``rows[n]``; -1 means none."""
        self._at_s = np.array([self.at_s(row) if row >= 0 else 0.0 for row in rows], np.float64)

    def at_s(self, row: int) -> float:
        """Return Redis' clock at the last heartbeat of ``row``; 0 when there was none."""
        return float(self._at_s[row]) if row < len(self._at_s) else 0.0

    def age_s(self, row: int) -> float:
        """Return the age of the last heartbeat of ``row``, regardless of gaps; infinite if there was none."""
        at_s = self.at_s(row)
        return self.read_s - at_s if at_s else float("inf")

    def is_recent(self, row: int) -> bool:
        """Return whether the last heartbeat of ``row`` is not older than ``suspect_s``."""
        return self.age_s(row) <= self.suspect_s

    def are_recent(self, count: int) -> list[bool]:
        """Return ``is_recent`` of the first ``count`` rows."""
        at_s = grown(self._at_s[:count], count)
        recent: list[bool] = ((at_s > 0) & (self.read_s - at_s <= self.suspect_s)).tolist()
        return recent

    def classify(self, status: Ints) -> LivenessChanges:
        """Compare the ``PlacementStatus`` of every row with the age of its heartbeat."""
        if len(status):
            self.record([len(status) - 1], [0.0])  # Every row has an entry.
        at_s = self._at_s[: len(status)]
        true_age = self.read_s - at_s
        age = self.read_s - np.maximum(at_s, self.gapless_since_s)
        away = (status == PlacementStatus.SUSPECT) | (status == PlacementStatus.DEAD)
        not_dead = status != PlacementStatus.DEAD
        return LivenessChanges(
            recent=np.flatnonzero(away & (true_age <= self.suspect_s)),
            suspect=np.flatnonzero(not_dead & (age > self.suspect_s) & (age <= self.dead_s)),
            dead=np.flatnonzero(not_dead & (age > self.dead_s)),
        )
