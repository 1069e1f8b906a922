"""The threads around a leadership: campaign, hold the lease, tick, publish, and stand by again."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import Grant, LeaderNexus, Publish
from galaxy.driver.leadership import CommittedStep, Leadership
from galaxy.driver.lease import Lease
from galaxy.errors import GalaxyError, NotLeader, Unreachable
from galaxy.model.messages.agent import AgentUsage, UsageRead
from galaxy.model.step import Logic
from galaxy.statemachine.backoff import Backoff

RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
UNCONFIRMED_S: Final = 5.0
"""How long a leader that holds its lease tries one commit; then it lets go, and answers nobody."""
STAND_BY_EXIT_S: Final = 0.2
"""How long ``stop`` waits for a standby, which holds nothing and may be blocked on Redis."""
TICK_MIN_S: Final = 0.005
"""Shortest time between two ticks that nothing but ``wake_s`` asked for."""
LANES: Final = 2
"""Connections over which a lease is renewed in turn."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShellOptions:
    """``ttl_s`` of the lease; how often heartbeats, and (0: never) usage, are read; how many events wait."""

    ttl_s: float = 2.0
    beats_s: float = 1.0
    usages_s: float = 0.0
    inbox_max: int = 100_000


class LeaderShell:
    """Leads a role whenever it can. ``owner`` is unique over all processes of all times.

    ``on_lead`` and ``on_stand_by`` are called from the loop's thread and shall not block;
    ``prepare`` has a thread of its own, from when the lease is won, and may take its time.
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
    ) -> None:
        self.role = role
        self.owner = owner
        self.address = address
        self.options = options or ShellOptions()
        self.inbox = LeaderInbox(self.options.inbox_max)
        self._logic = logic
        self._nexus = nexus
        self._publish = publish
        self._prepare = prepare
        self._on_lead = on_lead
        self._on_stand_by = on_stand_by
        self._stopping = threading.Event()
        self._lease: Lease | None = None
        self._thread = threading.Thread(target=self._run, name=f"{role}-loop", daemon=True)

    @property
    def leading(self) -> bool:
        """True from when the state is loaded until the lease is over."""
        lease = self._lease
        return lease is not None and lease.held()

    def offer(self, event: Any) -> bool:
        """Record ``event`` and wake the loop; False when not leading or when it is full."""
        return self.leading and self.inbox.put(event)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Finish what has arrived, let go of the lead, and end; a standby just ends."""
        self._stopping.set()
        self.inbox.wake()
        self._thread.join(timeout_s if self._lease is not None else min(timeout_s, STAND_BY_EXIT_S))

    def _run(self) -> None:
        retry = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while not self._stopping.is_set():
            try:
                lease = self._campaign()
                if lease is not None:
                    retry.reset()
                    self._lead(lease)
                continue
            except NotLeader as error:
                log.warning("event=leader.lost role=%s cause=%r", self.role, error.message)
            except GalaxyError as error:
                log.warning("event=leader.waiting role=%s cause=%r", self.role, error.message)
            except Exception:
                log.exception("event=leader.failed role=%s", self.role)
            self._stopping.wait(retry.next_s())

    def _campaign(self) -> Lease | None:
        sent_s = _clock()
        answer = self._nexus.campaign(self.role, self.owner, ttl_s=self.options.ttl_s, address=self.address)
        if isinstance(answer, Grant):
            return Lease(answer, sent_s, _clock)
        self._nexus.await_release(self.role, answer.remaining_s + 0.005)
        return None

    def _lead(self, lease: Lease) -> None:
        """Lead until the lease is over or we stop; let go of it in the end."""
        over = threading.Event()
        keepers = [
            threading.Thread(
                target=self._keep, args=(lease, over, lane), name=f"{self.role}-lease", daemon=True
            )
            for lane in range(LANES)
        ]
        pulse = threading.Thread(target=self._feel, args=(over,), name=f"{self.role}-beats", daemon=True)
        leadership = Leadership(
            self._logic,
            self._nexus,
            lease.grant,
            held=lease.held,
            again=lambda: self._patience(lease),
        )
        try:
            for keeper in keepers:
                keeper.start()
            threading.Thread(target=self._prepare, name=f"{self.role}-prepare", daemon=True).start()
            with _all_is_kept():
                leadership.begin(time.time())
            self.inbox.clear()
            self._lease = lease
            log.info(
                "event=leader.leading role=%s epoch=%d owner=%s", self.role, lease.grant.epoch, self.owner
            )
            pulse.start()
            self._on_lead()
            self._loop(lease, leadership)
        finally:
            self._lease = None
            over.set()
            gc.unfreeze()
            self._on_stand_by()
            self._let_go(lease)
            log.info(
                "event=leader.stopped role=%s epoch=%d ticks=%d commits=%d poisoned=%d "
                "dropped_with_poison=%d dropped=%d",
                self.role,
                lease.grant.epoch,
                leadership.ticks,
                leadership.commits,
                leadership.poisoned,
                leadership.dropped,
                self.inbox.dropped,
            )

    def _loop(self, lease: Lease, leadership: Leadership) -> None:
        wait_s = 0.0
        while not self._stopping.is_set():
            events = self.inbox.take(min(wait_s, max(lease.left_s(), 0.0)))
            if not lease.held():
                raise NotLeader(f"the lease of epoch {lease.grant.epoch} was not renewed in time")
            wake_s = self._tick(leadership, events)
            wait_s = self.options.ttl_s if wake_s is None else max(wake_s - time.time(), TICK_MIN_S)
        if events := self.inbox.take(0.0):
            self._tick(leadership, events)

    def _tick(self, leadership: Leadership, events: list[Any]) -> float | None:
        wake_s = None
        for outcome in leadership.advance(time.time(), events):
            self._deliver(outcome)
            wake_s = outcome.wake_s
        return wake_s

    def _deliver(self, outcome: CommittedStep) -> None:
        """Send what was committed. What does not get out is sent again by the logic in time."""
        try:
            if outcome.sends:
                self._publish(outcome.sends)
            if outcome.replies:
                self._nexus.reply(outcome.replies)
        except Unreachable as error:
            log.warning(
                "event=send.failed role=%s sends=%d replies=%d cause=%r",
                self.role,
                len(outcome.sends),
                len(outcome.replies),
                error.message,
            )
        except Exception:
            log.exception("event=send.raised role=%s", self.role)

    def _patience(self, lease: Lease) -> Callable[[Unreachable], bool]:
        """Return what says whether to try one commit again: with pauses, ``UNCONFIRMED_S`` from now."""
        pause, until_s = Backoff(RETRY_MIN_S, RETRY_MAX_S / 2), _clock() + UNCONFIRMED_S

        def again(error: Unreachable) -> bool:
            log.warning("event=commit.unknown role=%s cause=%r", self.role, error.message)
            if _clock() > until_s or self._stopping.wait(pause.next_s()):
                return False
            return lease.held()

        return again

    def _keep(self, lease: Lease, over: threading.Event, lane: int) -> None:
        """Renew in turn with the other lanes, each over a connection of its own.

        A packet that a slow link loses holds up what follows it in the same connection for
        longer than a lease may last. All begin at once, so that all connections are open.
        """
        next_s = _clock() + lane * lease.renew_every_s
        while True:
            sent_s = _clock()
            try:
                if self._nexus.renew(lease.grant):
                    lease.renewed(sent_s)
                else:
                    lease.lose()
            except GalaxyError as error:
                log.warning("event=lease.not-renewed role=%s cause=%r", self.role, error.message)
            except Exception:
                log.exception("event=lease.raised role=%s", self.role)
            if not lease.held():
                self.inbox.wake()
                return
            next_s = max(next_s + LANES * lease.renew_every_s, _clock())
            if over.wait(next_s - _clock()):
                return

    def _feel(self, over: threading.Event) -> None:
        usages_at_s = _clock() + self.options.usages_s
        while True:
            try:
                self.inbox.put_latest("beats", self._nexus.beats())
                if self.options.usages_s and _clock() >= usages_at_s:
                    usages_at_s = _clock() + self.options.usages_s
                    self.inbox.put_latest("usages", _pods_used(self._nexus.usages()))
            except GalaxyError as error:
                log.warning("event=beats.unread role=%s cause=%r", self.role, error.message)
            except Exception:
                log.exception("event=beats.raised role=%s", self.role)
            if over.wait(self.options.beats_s):
                return

    def _let_go(self, lease: Lease) -> None:
        try:
            self._nexus.release(lease.grant)
        except GalaxyError as error:
            log.warning("event=leader.release-failed role=%s cause=%r", self.role, error.message)


@contextmanager
def _all_is_kept() -> Iterator[None]:
    """Keep the garbage collector from looking through what is being loaded, and from then on.

    There may be a million objects of which none is garbage. What goes is freed at once as ever.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _pods_used(usages: dict[str, AgentUsage]) -> UsageRead:
    return UsageRead(pods={pod: used for usage in usages.values() for pod, used in usage.pods.items()})


def _clock() -> float:
    """Seconds that count on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
