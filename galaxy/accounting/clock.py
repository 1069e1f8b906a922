"""Redis' clock as a leader knows it between two readings, for intervals that several leaders measure."""

from __future__ import annotations

from typing import Final

STEP_S: Final = 5.0
"""A reading that is further back than this means that a clock was set; a smaller one was read late."""
CLOCK_S_MAX: Final = 253_402_300_800.0
"""The year 10000. A clock beyond it is broken, and its intervals would be infinite."""
DRIFT_S: Final = 0.001
"""By how much two clocks may drift apart between two readings."""
UNREAD_S_MAX: Final = 30.0
"""How far the clock goes on without a reading: one is due every second. Beyond it, the own clock was set."""


class AccountClock:
    """Converts a leader's own time to Redis' time.

    A reading arrives some time after it was taken, so the one that arrived fastest is the most exact, and
    a later one counts only by ``DRIFT_S``. The clock goes back only when a clock was set.
    """

    def __init__(self, redis_s: float, own_s: float) -> None:
        """``redis_s``: Redis' clock when the leader was elected, at ``own_s`` of its own clock."""
        self._ahead_s = redis_s - own_s
        self._read_s = redis_s
        self._last_s = redis_s

    def read(self, redis_s: float, own_s: float) -> None:
        """Record that Redis' clock was ``redis_s``, a moment before ``own_s`` of the own clock.

        A reading that is no time before ``CLOCK_S_MAX`` is ignored.
        """
        if not 0.0 <= redis_s < CLOCK_S_MAX:
            return
        ahead_s = redis_s - own_s
        behind_s = self._ahead_s - ahead_s
        if 0 <= behind_s <= STEP_S:
            self._ahead_s -= min(behind_s, DRIFT_S)
        else:
            self._ahead_s = ahead_s
        if self._last_s > redis_s + STEP_S:
            self._last_s = redis_s
        self._read_s = redis_s

    def now_s(self, own_s: float) -> float:
        """Return Redis' clock at ``own_s`` of the own clock."""
        now_s = min(own_s + self._ahead_s, self._read_s + UNREAD_S_MAX)
        self._last_s = max(self._last_s, now_s)
        return self._last_s
