"""A leader's threads other than its loop: lease renewal, and reading heartbeats and usage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import LeaderNexus
from galaxy.driver.lease import Lease
from galaxy.driver.report_reader import ReportCounts, ReportReader
from galaxy.errors import GalaxyError
from galaxy.model.messages.agent import AgentUsage, MetersRead, UsageRead

LANES: Final = 2
"""Threads, each with its own connection, that renew a lease in turn."""

log = logging.getLogger(__name__)


class Background:
    """Threads that run for the length of one leadership and put what they read into ``inbox``."""

    def __init__(self, nexus: LeaderNexus, lease: Lease, inbox: LeaderInbox) -> None:
        self._nexus = nexus
        self._lease = lease
        self._inbox = inbox
        self._role = lease.grant.role
        self._stopping = threading.Event()

    def renew_lease(self) -> None:
        """Start renewing the lease, in ``LANES`` threads in turn, each over its own connection.

        A lost packet on a slow link can delay its connection for longer than the lease lasts. All lanes
        send their first renewal at once, so that all connections are open from the start.
        """
        for lane in range(LANES):
            self._start("lease", partial(self._renew, lane))

    def read_heartbeats(self, every_s: float, usages_every_s: float, meters_every_s: float = 0.0) -> None:
        """Start reading all heartbeats, and usage and meters where their interval is not 0."""
        others = [
            (usages_every_s, lambda: self._inbox.put_latest("usages", _pod_usages(self._nexus.usages()))),
            (
                meters_every_s,
                lambda: self._inbox.put_latest("meters", MetersRead(samples=self._nexus.meters())),
            ),
        ]
        self._start("heartbeats", lambda: self._read(every_s, [other for other in others if other[0]]))

    def read_reports(self, counts: ReportCounts) -> None:
        """Start taking agents' reports into the inbox."""
        reader = ReportReader(self._nexus, self._lease.grant, self._inbox, counts, self._stopping)
        self._start("reports", reader.run)

    def stop(self) -> None:
        """Tell the threads to end, and return without waiting for them."""
        self._stopping.set()

    def _start(self, name: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=f"{self._role}-{name}", daemon=True).start()

    def _renew(self, lane: int) -> None:
        lease = self._lease
        next_s = boot_clock() + lane * lease.renew_every_s
        while True:
            sent_s = boot_clock()
            try:
                if self._nexus.renew(lease.grant):
                    lease.renewed(sent_s)
                else:
                    lease.lose()
            except GalaxyError as error:
                log.warning("event=lease.not-renewed role=%s cause=%r", self._role, error.message)
            except Exception:
                log.exception("event=lease.raised role=%s", self._role)
            if not lease.is_held():
                self._inbox.wake()
                return
            next_s = max(next_s + LANES * lease.renew_every_s, boot_clock())
            if self._stopping.wait(next_s - boot_clock()):
                return

    def _read(self, every_s: float, others: Sequence[tuple[float, Callable[[], None]]]) -> None:
        """Read heartbeats, and each of ``others`` at its own interval."""
        due_s = [boot_clock() + other_s for other_s, _ in others]
        while True:
            try:
                self._inbox.put_latest("heartbeats", self._nexus.heartbeats(self._role))
                for number, (other_s, read) in enumerate(others):
                    if boot_clock() >= due_s[number]:
                        due_s[number] = boot_clock() + other_s
                        read()
            except GalaxyError as error:
                log.warning("event=heartbeats.unread role=%s cause=%r", self._role, error.message)
            except Exception:
                log.exception("event=heartbeats.raised role=%s", self._role)
            if self._stopping.wait(every_s):
                return


def boot_clock() -> float:
    """Return seconds of a clock that keeps counting while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _pod_usages(usages: dict[str, AgentUsage]) -> UsageRead:
    return UsageRead(agents={agent: usage.pods for agent, usage in usages.items() if usage.pods})
