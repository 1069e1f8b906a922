"""The shell around a leader's logic: campaign, load, tick, publish, and stand by again."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from galaxy.driver.background import Background, boot_clock
from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import Grant, LeaderNexus, Publish
from galaxy.driver.leadership import CommittedStep, Leadership, RetryPolicy
from galaxy.driver.lease import Lease
from galaxy.driver.report_reader import ReportCounts
from galaxy.driver.standby import Standby
from galaxy.driver.warm_tables import WarmTables
from galaxy.errors import GalaxyError, NotLeader, Unreachable
from galaxy.model.api.answers import Reply
from galaxy.model.step import Logic
from galaxy.statemachine.backoff import Backoff

RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
UNCONFIRMED_S: Final = 5.0
"""How long a leader that holds its lease retries one commit before it gives up the lead."""
STAND_BY_EXIT_S: Final = 0.2
"""How long ``stop`` waits for a standby, which holds no lock and may be blocked on Redis."""
STEADY_S: Final = 10.0
"""A leadership that lasted this long ends the back-off between attempts to lead."""
TICK_S_MIN: Final = 0.005
"""Shortest pause before a tick that no event caused, but only ``wake_s``."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShellOptions:
    """Duration of a lease, intervals of reading heartbeats, usage and meters (0: never), size of the inbox.

    ``settings``, by name, should be the same in every process of the role.
    """

    ttl_s: float = 2.0
    heartbeats_every_s: float = 1.0
    usages_every_s: float = 0.0
    meters_every_s: float = 0.0
    inbox_max: int = 100_000
    settings: Mapping[str, str] = field(default_factory=dict)


class LeaderShell:
    """Leads a role whenever it wins the election. No other process, past or present, has the same ``owner``.

    ``on_lead``, ``on_stand_by`` and ``on_answered`` (after the answers of a tick were sent) are called from
    the loop's thread and must not block. ``prepare``
    runs in a thread of its own from when the lease is won, and may block.
    """

    def __init__(
        self,
        *,
        role: str,
        owner: str,
        address: str,
        logic: Logic,
        nexus: LeaderNexus,
        publish: Publish,
        prepare: Callable[[], None] = lambda: None,
        on_lead: Callable[[], None] = lambda: None,
        on_stand_by: Callable[[], None] = lambda: None,
        options: ShellOptions | None = None,
        report_counts: ReportCounts | None = None,
        on_answered: Callable[[Sequence[Reply]], None] = lambda _: None,
    ) -> None:
        self.role = role
        self.owner = owner
        self.address = address
        self.options = options or ShellOptions()
        self.inbox = LeaderInbox(self.options.inbox_max)
        self._on_answered = on_answered
        self._report_counts = report_counts or ReportCounts()
        self._logic = logic
        self._nexus = nexus
        self._publish = publish
        self._prepare = prepare
        self._on_lead = on_lead
        self._on_stand_by = on_stand_by
        self._stopping = threading.Event()
        self._retry = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        self._lease: Lease | None = None
        self._standby = Standby(WarmTables(role, nexus, logic.tables.values()))
        self._thread = threading.Thread(target=self._run, name=f"{role}-loop", daemon=True)

    @property
    def leading(self) -> bool:
        """True from when the state is loaded until the lease is over."""
        lease = self._lease
        return lease is not None and lease.is_held()

    def offer(self, event: Any) -> bool:
        """Queue ``event`` and wake the loop; return False when not leading or when the inbox is full."""
        return self.leading and self.inbox.put(event)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Process the events in the inbox, release the lead, and end the loop."""
        self._stopping.set()
        self.inbox.wake()
        self._thread.join(timeout_s if self._lease is not None else min(timeout_s, STAND_BY_EXIT_S))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                lease = self._campaign()
                if lease is not None:
                    self._lead(lease)
                continue
            except NotLeader as error:
                log.warning("event=leader.lost role=%s cause=%r", self.role, error.message)
            except GalaxyError as error:
                log.warning("event=leader.waiting role=%s cause=%r", self.role, str(error))
            except Exception:
                log.exception("event=leader.failed role=%s", self.role)
            self._stopping.wait(self._retry.next_s())

    def _campaign(self) -> Lease | None:
        sent_s = boot_clock()
        answer = self._nexus.campaign(self.role, self.owner, ttl_s=self.options.ttl_s, address=self.address)
        if isinstance(answer, Grant):
            return Lease(answer, sent_s, boot_clock)
        self._standby.follow()
        self._nexus.await_release(self.role, answer.remaining_s + 0.005)
        return None

    def _lead(self, lease: Lease) -> None:
        """Lead until the lease is over or ``stop`` is called, then release the lock."""
        self._standby.stop()
        background = Background(self._nexus, lease, self.inbox)
        leadership = Leadership(
            self._logic,
            self._nexus,
            lease.grant,
            lease_is_held=lease.is_held,
            retry_policy=lambda: self._commit_retries(lease),
            warm=self._standby.warm,
            settings=self.options.settings,
        )
        try:
            background.renew_lease()
            threading.Thread(target=self._prepare, name=f"{self.role}-prepare", daemon=True).start()
            with _no_garbage_collection():
                leadership.begin(time.time())
            self.inbox.clear()
            self._lease = lease
            log.info(
                "event=leader.leading role=%s epoch=%d owner=%s warm=%s",
                self.role, lease.grant.epoch, self.owner, str(leadership.was_warm).lower(),
            )  # fmt: skip
            background.read_heartbeats(
                self.options.heartbeats_every_s, self.options.usages_every_s, self.options.meters_every_s
            )
            background.read_reports(self._report_counts)
            self._on_lead()
            began_s = boot_clock()
            try:
                self._loop(lease, leadership)
            finally:
                # Not earlier: state that cannot be loaded or stepped fails again after each election.
                if boot_clock() - began_s > STEADY_S:
                    self._retry.reset()
        finally:
            self._lease = None
            background.stop()
            gc.unfreeze()
            self._on_stand_by()
            self._release(lease)
            self._log_end(lease, leadership)

    def _loop(self, lease: Lease, leadership: Leadership) -> None:
        wait_s = 0.0
        while not self._stopping.is_set():
            events = self.inbox.take(min(wait_s, max(lease.left_s(), 0.0)))
            if not lease.is_held():
                raise NotLeader(f"the lease of epoch {lease.grant.epoch} was not renewed in time")
            wake_s = self._tick(leadership, events)
            wait_s = self.options.ttl_s if wake_s is None else max(wake_s - time.time(), TICK_S_MIN)
        left = len(self.inbox)  # No more than these, because events still arrive.
        while left > 0 and (events := self.inbox.take(0.0)):
            left -= len(events)
            self._tick(leadership, events)

    def _tick(self, leadership: Leadership, events: list[Any]) -> float | None:
        wake_s = None
        for committed in leadership.advance(time.time(), events):
            self._deliver(committed)
            wake_s = committed.wake_s
        return wake_s

    def _deliver(self, committed: CommittedStep) -> None:
        """Send the messages and answers of a committed step. The logic resends what is lost here."""
        if committed.replies:  # First, because a client waits for each, and messages are resent.
            self._attempt("reply", len(committed.replies), lambda: self._nexus.reply(committed.replies))
            self._on_answered(committed.replies)
        if committed.sends:
            self._attempt("send", len(committed.sends), lambda: self._publish(committed.sends))
        if committed.forget:
            forget = committed.forget
            self._attempt("forget", len(forget), lambda: self._nexus.forget_agents(forget))

    def _attempt(self, what: str, count: int, act: Callable[[], None]) -> None:
        """Call ``act``. A failure is logged; the rest of the tick is still sent."""
        try:
            act()
        except GalaxyError as error:
            log.warning("event=%s.failed role=%s count=%d cause=%r", what, self.role, count, error.message)
        except Exception:
            log.exception("event=%s.raised role=%s count=%d", what, self.role, count)

    def _commit_retries(self, lease: Lease) -> RetryPolicy:
        """Return the retry policy of one commit: retry with pauses for ``UNCONFIRMED_S``."""
        pause, until_s = Backoff(RETRY_MIN_S, RETRY_MAX_S / 2), boot_clock() + UNCONFIRMED_S

        def try_again(error: Unreachable) -> bool:
            log.warning("event=commit.unknown role=%s cause=%r", self.role, error.message)
            if boot_clock() > until_s or self._stopping.wait(pause.next_s()):
                return False
            return lease.is_held()

        return try_again

    def _release(self, lease: Lease) -> None:
        try:
            self._nexus.release(lease.grant)
        except GalaxyError as error:
            log.warning("event=leader.release-failed role=%s cause=%r", self.role, error.message)

    def _log_end(self, lease: Lease, leadership: Leadership) -> None:
        log.info(
            "event=leader.stopped role=%s epoch=%d ticks=%d commits=%d poisonous=%d "
            "dropped_with_poisonous=%d dropped=%d",
            self.role,
            lease.grant.epoch,
            leadership.ticks,
            leadership.commits,
            leadership.poisonous,
            leadership.dropped,
            self.inbox.dropped,
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Exclude what is created inside from garbage collection, until ``gc.unfreeze``.

    Loading creates about a million objects, none of them garbage; reference counting still frees them.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
