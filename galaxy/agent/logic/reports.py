"""Reports to one leader: batched, one at a time, and resent until published."""

from __future__ import annotations

from galaxy.model.messages.agent import AgentReport
from galaxy.statemachine.backoff import Backoff

GATHER_S = 0.02
"""Minimum time between reports that contain only transitional states."""
GATHER_URGENT_S = 0.005
"""Minimum time before a report with a state that a leader waits for."""
RETRY_S = 0.5
RETRY_S_MAX = 5.0


class Outbox:
    """Keys whose state has not been reported to one role yet. At most one report is pending.

    A report is built from the tables when it is sent. So each key is reported in its newest state,
    and a Redis that is unreachable for an hour costs no memory. Times are those of ``now_s``.
    """

    def __init__(self) -> None:
        self.full = False
        """The next report contains everything."""
        self._unreported: dict[str, None] = {}
        self._pending: tuple[bool, dict[str, None]] | None = None
        self._urgent = False
        self._last_s = -GATHER_S
        self._hold_until_s = 0.0
        self._backoff = Backoff(RETRY_S, RETRY_S_MAX)

    def mark(self, key: str, *, urgent: bool = True) -> None:
        """Add ``key`` to the next report. Not ``urgent``: a state that soon changes again."""
        self._unreported[key] = None
        self._urgent |= urgent

    def mark_full(self) -> None:
        self.full = True

    def wake_s(self) -> float | None:
        """Return when the next report may be sent; None if there is nothing to report, or one is pending."""
        if self._pending is not None or not (self.full or self._unreported):
            return None
        gather_s = GATHER_URGENT_S if self._urgent or self.full else GATHER_S
        return max(self._last_s + gather_s, self._hold_until_s)

    def take(self, now_s: float) -> tuple[bool, tuple[str, ...]]:
        """Return whether to report everything, and otherwise which keys; they are pending now."""
        taken = self.full, self._unreported
        self._pending, self._unreported, self.full, self._urgent = taken, {}, False, False
        self._last_s = now_s
        return taken[0], tuple(taken[1])

    def on_published(self, now_s: float, *, ok: bool) -> None:
        """Drop the pending report if it was published; otherwise report its keys again, after a pause."""
        pending, self._pending = self._pending, None
        if ok or pending is None:
            self._hold_until_s = 0.0
            self._backoff.reset()
            return
        self.full = self.full or pending[0]
        self._unreported = {**pending[1], **self._unreported}
        self._urgent = True
        self._hold_until_s = now_s + self._backoff.next_s()


def report_id(report: AgentReport, role: str) -> str:
    """Return the Celery id of a report; it is unique to the agent's boot and serial."""
    return f"report:{role}:{report.agent}:{report.boot}:{report.serial}"
