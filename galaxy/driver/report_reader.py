"""Takes agents' reports out of Nexus into a leader's inbox, as fast as the leader handles them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import Grant, LeaderNexus
from galaxy.errors import GalaxyError
from galaxy.statemachine.backoff import Backoff

WAIT_S: Final = 1.0
"""Longest wait for a report, and for room in the inbox; the reader ends after it at the latest."""
RETRY_S: Final = 0.1
RETRY_S_MAX: Final = 2.0

log = logging.getLogger(__name__)


class ReportCounts:
    """How many reports a process has taken; ``inspect stats``, and so Flower, shows the numbers."""

    def __init__(self) -> None:
        self.taken = 0
        self.rounds = 0
        self.refused = 0
        self.on_refused: Callable[[str, str], None] = _ignore
        """Called for each refused report, with the agent and the reason."""

    def __json__(self) -> dict[str, int]:
        """Return the counts for Celery's remote control."""
        return {"taken": self.taken, "rounds": self.rounds, "refused": self.refused}


def _ignore(_agent: str, _why: str) -> None:
    pass


class ReportReader:
    """Reads for one leadership. What the inbox has no room for stays with Nexus, where agents replace it."""

    def __init__(
        self,
        nexus: LeaderNexus,
        grant: Grant,
        inbox: LeaderInbox,
        counts: ReportCounts,
        stopping: threading.Event,
    ) -> None:
        self._nexus = nexus
        self._grant = grant
        self._inbox = inbox
        self._counts = counts
        self._stopping = stopping

    def run(self) -> None:
        """Read until ``stopping`` is set; errors are logged, and tried again with back-off."""
        pause = Backoff(RETRY_S, RETRY_S_MAX)
        while not self._stopping.is_set():
            if not self._inbox.await_room(WAIT_S):
                continue
            try:
                self._read()
                pause.reset()
                continue
            except GalaxyError as error:
                log.warning("event=reports.unread role=%s cause=%r", self._grant.role, error.message)
            except Exception:
                log.exception("event=reports.raised role=%s", self._grant.role)
            self._stopping.wait(pause.next_s())

    def _read(self) -> None:
        taken = self._nexus.take_reports(self._grant, WAIT_S)
        if self._stopping.is_set():
            return  # The inbox belongs to the next leadership, which asks for full reports.
        self._counts.rounds += bool(taken.reports)
        self._counts.taken += len(taken.reports)
        self._inbox.put_reports(taken.reports)
        for one in taken.refused:
            self._counts.refused += 1
            self._counts.on_refused(one.agent, one.why)
