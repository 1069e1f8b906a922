"""Reports to one leader: the first at once, then gathered; what did not leave is said again."""

from __future__ import annotations

from galaxy.model.messages.agent import AgentReport
from galaxy.statemachine.backoff import Backoff

GATHER_S = 0.02
"""Between reports of states on the way."""
GATHER_URGENT_S = 0.005
"""Between reports when one holds what somebody waits for."""
RETRY_S = 0.5
RETRY_S_MAX = 5.0


class Outbox:
    """What one role has not been told yet, by key; at most one report is on its way.

    A report is made from the tables when it leaves, so the newest state of every key wins and
    a Redis that is away for an hour costs no state. Seconds are those of ``now_s``.
    """

    def __init__(self) -> None:
        self.full = False
        self._dirty: dict[str, None] = {}
        self._sent: tuple[bool, dict[str, None]] | None = None
        self._urgent = False
        self._last_s = -GATHER_S
        self._hold_s = 0.0
        self._backoff = Backoff(RETRY_S, RETRY_S_MAX)

    def mark(self, key: str, *, urgent: bool = True) -> None:
        """Owe the state of ``key``; not ``urgent``: it is on the way to one that will be."""
        self._dirty[key] = None
        self._urgent |= urgent

    def mark_full(self) -> None:
        self.full = True

    def wake_s(self) -> float | None:
        """Return when the next report may leave; None: nothing to say, or one is on its way."""
        if self._sent is not None or not (self.full or self._dirty):
            return None
        gather_s = GATHER_URGENT_S if self._urgent or self.full else GATHER_S
        return max(self._last_s + gather_s, self._hold_s)

    def take(self, now_s: float) -> tuple[bool, tuple[str, ...]]:
        """Return whether to report everything, and else which keys; they count as on their way."""
        taken = self.full, self._dirty
        self._sent, self._dirty, self.full, self._urgent = taken, {}, False, False
        self._last_s = now_s
        return taken[0], tuple(taken[1])

    def settled(self, now_s: float, *, ok: bool) -> None:
        """The report on its way has left; or has not, and what it said is owed again."""
        sent, self._sent = self._sent, None
        if ok or sent is None:
            self._hold_s = 0.0
            self._backoff.reset()
            return
        self.full = self.full or sent[0]
        self._dirty = {**sent[1], **self._dirty}
        self._urgent = True
        self._hold_s = now_s + self._backoff.next_s()


def report_id(report: AgentReport, role: str) -> str:
    """Return the Celery id of a report: one of one life of the agent has one id."""
    return f"report:{role}:{report.agent}:{report.boot}:{report.serial}"
