"""Reports to one leader: at most one that it has not read, with everything that changed since."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport
from galaxy.statemachine.backoff import Backoff

GATHER_S = 0.02
"""Minimum time between reports that contain only transitional states."""
GATHER_URGENT_S = 0.005
"""Minimum time before a report with a state that a leader waits for."""
GATHER_UNREAD_S = 0.05
"""Minimum time before the next report when the leader had not read the last one: it is busy."""
RETRY_S = 0.5
RETRY_S_MAX = 5.0
KEYS_MAX = 4096
"""A report that would name more containers or pods than this names everything instead."""


class DueReport(Struct, frozen=True, kw_only=True):
    """A report to post to the leader of ``role`` now; ``replaces``: also in place of an unread one."""

    role: str
    report: AgentReport
    replaces: bool


class Outbox:
    """What one role's leader does not know yet: keys whose state has changed since it read a report.

    A report is built from the tables when it is sent. So each key is reported in its newest state,
    and a Redis that is unreachable for an hour costs no memory. Times are those of ``now_s``.

    A report is posted on the condition that the leader has read the last one. If it has not, the next
    report contains the keys of both, and replaces it. At most one report is pending: on its way to Redis.
    """

    def __init__(self) -> None:
        self.full = False
        """The next report contains everything."""
        self._unreported: dict[str, None] = {}
        self._pending: tuple[bool, dict[str, None]] | None = None
        self._posted: tuple[bool, dict[str, None]] = (False, {})
        """What the report names that was posted last, which the leader may not have read."""
        self._replaces = False
        """The leader has not read it, so the next report replaces it."""
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

    def take(self, now_s: float) -> tuple[bool, tuple[str, ...], bool]:
        """Return whether to report everything, otherwise which keys, and whether to replace an unread report.

        They are pending now.
        """
        if self._replaces:
            self._add(*self._posted)
        self._pending = self.full, self._unreported
        self._unreported, self.full, self._urgent = {}, False, False
        self._last_s = now_s
        return self._pending[0], tuple(self._pending[1]), self._replaces

    def drop(self) -> None:
        """Drop the pending report, because it would be empty."""
        self._pending = None

    def on_published(self, now_s: float, *, ok: bool, unread: bool = False) -> None:
        """Handle the end of the pending report.

        If it was not posted, because the one before is ``unread`` or Redis could not be reached (``ok`` is
        False), its keys are reported again.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if ok and not unread:
            self._posted = pending
            self._hold_until_s = now_s + GATHER_UNREAD_S if self._replaces else 0.0
            self._replaces = False
            self._backoff.reset()
            return
        self._add(*pending)
        self._urgent = True
        # After a failure it is not known whether the last report is unread, so the next post finds out.
        self._replaces = ok
        self._hold_until_s = self._last_s = now_s - GATHER_S
        if not ok:
            self._hold_until_s = now_s + self._backoff.next_s()

    def _add(self, full: bool, keys: dict[str, None]) -> None:
        """Add what a report named to the next one, in front."""
        self.full = self.full or full
        self._unreported = {**keys, **self._unreported}
        if len(self._unreported) > KEYS_MAX:
            self.full, self._unreported = True, {}
