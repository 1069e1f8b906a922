"""Redis' clock as a leader knows it between two readings, for intervals that several leaders measure."""

from __future__ import annotations

from typing import Final

STEP_S: Final = 5.0
"""A reading that is further back than this means that a clock was set; a smaller one was read late."""
DRIFT_S: Final = 0.001
"""By how much two clocks may drift apart between two readings."""


class AccountClock:
    """Converts a leader's own time to Redis' time. It never goes back.

    A reading arrives some time after it was taken, so the one that arrived fastest is the most exact, and
    a later one counts only by ``DRIFT_S``.
    """

    def __init__(self, redis_s: float, own_s: float) -> None:
        """``redis_s``: Redis' clock when the leader was elected, at ``own_s`` of its own clock."""
        self._ahead_s = redis_s - own_s
        self._last_s = float("-inf")

    def read(self, redis_s: float, own_s: float) -> None:
        """Record that Redis' clock was ``redis_s``, a moment before ``own_s`` of the own clock."""
        ahead_s = redis_s - own_s
        behind_s = self._ahead_s - ahead_s
        self._ahead_s = (
            ahead_s if behind_s < 0 or behind_s > STEP_S else self._ahead_s - min(behind_s, DRIFT_S)
        )

    def now_s(self, own_s: float) -> float:
        """Return Redis' clock at ``own_s`` of the own clock, but never less than before."""
        self._last_s = max(self._last_s, own_s + self._ahead_s)
        return self._last_s
