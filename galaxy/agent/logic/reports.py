"""Reports to one leader: the first at once, then coalesced; what did not leave is said again."""

from __future__ import annotations

from galaxy.model.agent import AgentReport

COALESCE_S = 0.02
RETRY_S = 0.5
RETRY_S_MAX = 5.0


class Outbox:
    """What one role has not been told yet, by key; at most one report is on its way.

    A report is made from the tables when it leaves, so the newest state of every key wins and
    a Redis that is away for an hour costs no memory. Seconds are those of ``now_s``.
    """

    def __init__(self) -> None:
        self.full = False
        self._dirty: dict[str, None] = {}
        self._sent: tuple[bool, dict[str, None]] | None = None
        self._next_s = 0.0
        self._retry_s = RETRY_S

    def mark(self, key: str) -> None:
        self._dirty[key] = None

    def mark_full(self) -> None:
        self.full = True

    def wake_s(self) -> float | None:
        """Return when the next report may leave; None: nothing to say, or one is on its way."""
        if self._sent is not None or not (self.full or self._dirty):
            return None
        return self._next_s

    def take(self, now_s: float) -> tuple[bool, tuple[str, ...]]:
        """Return whether to report everything, and else which keys; they count as on their way."""
        taken = self.full, self._dirty
        self._sent, self._dirty, self.full = taken, {}, False
        self._next_s = now_s + COALESCE_S
        return taken[0], tuple(taken[1])

    def settled(self, now_s: float, *, ok: bool) -> None:
        """The report on its way has left; or has not, and what it said is owed again."""
        sent, self._sent = self._sent, None
        if ok or sent is None:
            self._retry_s = RETRY_S
            return
        self.full = self.full or sent[0]
        self._dirty = {**sent[1], **self._dirty}
        self._next_s = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)


def report_id(report: AgentReport, role: str) -> str:
    """Return the Celery id of a report: one of one life of the agent has one id."""
    return f"report:{role}:{report.agent}:{report.boot}:{report.serial}"
