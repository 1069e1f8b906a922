"""Who is alive, by the age of heartbeats on Redis' clock."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from galaxy.scheduler.view import Floats, Ints, Standing


class Judgement(NamedTuple):
    """Rows whose standing the ages of their beats no longer bear out."""

    fresh: Ints
    """Suspect or dead rows that have beaten lately."""
    suspect: Ints
    """Open rows that have not."""
    dead: Ints
    """Open or suspect rows that have not beaten for long."""


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

    def beat(self, row: int, at_s: float) -> None:
        """Take in one beat."""
        if row >= len(self._at_s):
            grown = np.zeros(max(16, 2 * row + 1))
            grown[: len(self._at_s)] = self._at_s
            self._at_s = grown
        self._at_s[row] = max(self._at_s[row], min(at_s, self.read_s))

    def age_s(self, row: int) -> float:
        """Return how old the last beat of ``row`` really is; there may have been none."""
        return self.read_s - float(self._at_s[row]) if row < len(self._at_s) else self.read_s

    def fresh(self, row: int) -> bool:
        """Return whether ``row`` has beaten lately."""
        return self.age_s(row) <= self.suspect_s

    def judge(self, standing: Ints) -> Judgement:
        """Compare the standing of every row with the age of its beat."""
        self.beat(max(0, len(standing) - 1), 0.0)
        at_s = self._at_s[: len(standing)]
        really = self.read_s - at_s
        age = self.read_s - np.maximum(at_s, self.floor_s)
        closed = (standing == Standing.SUSPECT) | (standing == Standing.DEAD)
        return Judgement(
            fresh=np.flatnonzero(closed & (really <= self.suspect_s)),
            suspect=np.flatnonzero(~closed & (age > self.suspect_s) & (age <= self.dead_s)),
            dead=np.flatnonzero((standing != Standing.DEAD) & (age > self.dead_s)),
        )
