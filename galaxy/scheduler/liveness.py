"""Who is alive, by the age of heartbeats on Redis' clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from galaxy.scheduler.cluster_view import Floats, Ints, Standing


class Judgement(NamedTuple):
    """Rows whose standing the ages of their beats no longer bear out."""

    fresh: Ints
    """Suspect or dead rows that have beaten lately."""
    suspect: Ints
    """Rows that are not dead and have not."""
    dead: Ints
    """Rows that are not dead and have not beaten for long."""


class Pulse:
    """Last heartbeats by row of the view, and since when the reader sees them without a gap.

    A reader that was blind, because it or Redis stood still, has no ages to judge by: every
    age counts from the end of its blindness at the earliest.
    """

    def __init__(self, *, suspect_s: float, dead_s: float, blind_s: float) -> None:
        self.suspect_s = suspect_s
        self.dead_s = dead_s
        self.blind_s = blind_s
        self.read_s = 0.0
        """Redis' clock at the last reading."""
        self.floor_s = 0.0
        """Redis' clock at the first reading since the reader was blind."""
        self._at_s: Floats = np.zeros(0)

    def read(self, now_s: float) -> None:
        """Begin a reading of all beats at Redis' time ``now_s``."""
        if now_s - self.read_s > self.blind_s:
            self.floor_s = now_s
        self.read_s = max(self.read_s, now_s)

    def beat(self, rows: Sequence[int], at_s: Sequence[float]) -> None:
        """Take in beats, each row once."""
        top = max(rows, default=-1)
        if top >= len(self._at_s):
            grown = np.zeros(max(16, 2 * top + 1))
            grown[: len(self._at_s)] = self._at_s
            self._at_s = grown
        index = np.array(rows, np.int64)
        self._at_s[index] = np.maximum(self._at_s[index], np.minimum(at_s, self.read_s))

    def renumber(self, rows: Sequence[int]) -> None:
        """Let row ``n`` have the beats of what was row ``rows[n]``; of none, when that is below 0."""
        self._at_s = np.array([self.at_s(row) if row >= 0 else 0.0 for row in rows], np.float64)

    def at_s(self, row: int) -> float:
        """Return Redis' clock at the last beat of ``row``; 0 when there was none."""
        return float(self._at_s[row]) if row < len(self._at_s) else 0.0

    def age_s(self, row: int) -> float:
        """Return how old the last beat of ``row`` really is; infinite when there was none."""
        at_s = self.at_s(row)
        return self.read_s - at_s if at_s else float("inf")

    def fresh(self, row: int) -> bool:
        """Return whether ``row`` has beaten lately."""
        return self.age_s(row) <= self.suspect_s

    def judge(self, standing: Ints) -> Judgement:
        """Compare the standing of every row with the age of its beat."""
        self.beat([len(standing) - 1] if len(standing) else [], [0.0] if len(standing) else [])
        at_s = self._at_s[: len(standing)]
        really = self.read_s - at_s
        age = self.read_s - np.maximum(at_s, self.floor_s)
        closed = (standing == Standing.SUSPECT) | (standing == Standing.DEAD)
        return Judgement(
            fresh=np.flatnonzero(closed & (really <= self.suspect_s)),
            suspect=np.flatnonzero(
                (standing != Standing.DEAD) & (age > self.suspect_s) & (age <= self.dead_s)
            ),
            dead=np.flatnonzero((standing != Standing.DEAD) & (age > self.dead_s)),
        )
