"""A simulated leader process: it stands by, campaigns, leads tick by tick, crashes, pauses and restarts.

It starts as ``galaxy.driver.shell`` does in production: bring the state to what is stored, receive
messages, step. The first read of heartbeats arrives a little later, because in production a thread
reads them. Another thread of production, ``galaxy.driver.standby``, is a chain of timers here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import FeedRead, Grant
from galaxy.driver.leadership import CommittedStep, Leadership
from galaxy.driver.lease import Lease
from galaxy.driver.warm_tables import Loaded, WarmTables
from galaxy.errors import GalaxyError, NotLeader, Unreachable
from galaxy.model.api.catalog import BODIES
from galaxy.model.api.request import Request
from galaxy.model.base import Struct, from_plain
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead, MetersRead
from galaxy.model.messages.names import RESMAN
from galaxy.model.step import Logic
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.checkers.standby import check_begun
from galaxy.testing.simulation.leader_faults import FaultyLogic, FaultyStore
from galaxy.testing.simulation.standby_feed import FaultyFeed
from galaxy.testing.simulation.world import World

TTL_S: Final = 2.0
HEARTBEATS_INTERVAL_S: Final = 1.0
METERS_INTERVAL_S: Final = 20.0
HEARTBEATS_READ_S: Final = (0.002, 0.05)
"""How long the first read of heartbeats takes, in seconds. The leader steps before that."""
INBOX_MAX: Final = 100_000
TICK_S: Final = 0.001
"""Seconds between the arrival of a message and the tick that handles it."""
FOLLOW_S: Final = (0.1, 0.2)
"""Seconds between two reads of the change feed by a standby."""
APPLY_S: Final = 0.02
"""Longest time from a read of the change feed until its rows are applied, in seconds."""


class LeaderProcess:
    """One of the processes that can lead ``role``. ``build`` returns the logic of one process."""

    def __init__(
        self,
        world: World,
        bus: Bus,
        nexus: MemoryNexus,
        *,
        role: str,
        name: str,
        build: Callable[[], Logic],
        kind: type[Leadership] = Leadership,
        warm: type[WarmTables] = WarmTables,
        ignore_lease: bool = False,
    ) -> None:
        """``ignore_lease``: continue after the lease has expired, so that only the fence stops a commit."""
        self.role = role
        self.name = name
        self._world = world
        self._bus = bus
        self._nexus = nexus
        self._build = build
        self._kind = kind
        self._warm_kind = warm
        self._feed = FaultyFeed(nexus, world, name)
        self._ignore_lease = ignore_lease
        self.ticks = 0
        """Committed ticks of this process, over all its leaderships."""
        self.crash_after_ticks: set[int] = set()
        """Values of ``ticks`` at which this process crashes before it sends the tick's messages."""
        self.heartbeats_hang = False
        """Whether reads of heartbeats give nothing, as when Redis hangs for the thread that reads them."""
        self.reports_hang = False
        """Whether no report is taken, as when the leader has more to do than it can."""
        self._process = 0
        self._paused_until_s = 0.0
        self._leadership: Leadership | None = None
        self.warm_begins = 0
        """Leaderships of this process that began without loading their tables."""
        self._following = False
        self._lease: Lease | None = None
        self._inbox = LeaderInbox(INBOX_MAX)
        self._tick_due = False
        self._wake_s: float | None = None
        self._start()

    @property
    def logic(self) -> Logic | None:
        """The logic that leads, or None."""
        return None if self._leadership is None else self._logic

    @property
    def leads(self) -> bool:
        return self._leadership is not None and self._lease is not None and self._lease.is_held()

    @property
    def epoch(self) -> int:
        """Epoch of the current leadership, 0 without one."""
        return 0 if self._leadership is None else self._leadership.grant.epoch

    @property
    def poisonous(self) -> int:
        """How many events have made a step of the current leadership raise."""
        return 0 if self._leadership is None else self._leadership.poisonous

    @property
    def must_recover(self) -> bool:
        """Whether the last step raised, so that the logic recovers before the next."""
        return self._leadership is not None and self._leadership.must_recover

    # ---- process

    def _start(self) -> None:
        self._process += 1
        self._clear_leadership()
        self._logic = self._build()
        self._warm = self._warm_kind(self.role, self._feed, self._logic.tables.values())
        self._schedule(self._world.between(0.05, 0.5), self._campaign)

    def crash(self) -> None:
        """Lose all memory; a supervisor starts the process again after 0.5 to 3 s."""
        self._world.record(f"{self.name} crashes")
        self._process += 1
        self._clear_leadership()
        self._world.after(self._world.between(0.5, 3.0), self._start)

    def pause(self, seconds: float) -> None:
        """Stop for ``seconds``, as SIGSTOP does: the process does not notice that time has passed."""
        self._world.record(f"{self.name} pauses for {seconds:.1f} s")
        self._paused_until_s = self._world.now_s + seconds

    def inject_faults(self) -> None:
        """Apply this process's faults; called once per simulated second."""
        faults = self._world.faults
        if self._world.strikes("leader_crash"):
            self.crash()
        elif self._world.strikes("leader_pause"):
            self.pause(self._world.between(0.5, faults.pause_s))

    def _schedule(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call ``act`` after ``delay_s``, or when a pause ends; never after a crash."""
        process = self._process

        def due() -> None:
            if process != self._process:
                return
            if self._paused_until_s > self._world.now_s:
                self._world.after(self._paused_until_s - self._world.now_s, due)
            else:
                act()

        self._world.after(delay_s, due)

    # ---- standing by

    def _follow_soon(self) -> None:
        """Follow the change feed, unless this process does so already."""
        if not self._following:
            self._following = True
            if self._warm.position is None:
                self._warm.clear()
            self._follow()

    def _follow(self) -> None:
        """Read the change feed once, and apply what was read a little later, unless this process leads."""
        if not self._following:
            return
        try:
            read = self._warm.read(0.0)
        except Unreachable as error:
            self._world.record(f"{self.name} cannot follow: {error.message}")
        else:
            self._schedule(self._feed.random.uniform(0.0, APPLY_S), lambda: self._apply(read))
        self._schedule(self._feed.random.uniform(*FOLLOW_S) + self._feed.late_s(), self._follow)

    def _apply(self, read: FeedRead | Loaded) -> None:
        if self._following:
            self._warm.apply(read)

    # ---- leading

    def _campaign(self) -> None:
        answer = self._nexus.campaign(self.role, self.name, ttl_s=TTL_S, address=self.name)
        if not isinstance(answer, Grant):
            self._follow_soon()
            self._schedule(answer.remaining_s + 0.005, self._campaign)
            return
        self._world.record(f"{self.name} leads in epoch {answer.epoch}")
        lease = Lease(answer, self._world.now_s, lambda: self._world.now_s)
        self._following = False
        lease_is_held = (lambda: True) if self._ignore_lease else lease.is_held
        faulty_logic = FaultyLogic(self._logic, self._world, lambda: self._check_begun(leadership))
        leadership = self._kind(
            faulty_logic,
            FaultyStore(self._nexus, self._world),
            answer,
            lease_is_held=lease_is_held,
            warm=self._warm,
        )
        self._lease = lease
        try:
            leadership.begin(self._world.now_s)
        except GalaxyError as error:
            self._stand_by(error.message)
            return
        self.warm_begins += leadership.was_warm
        self._leadership = leadership
        self._bus.consume(self.role, self._on_message)
        self._bus.on_posted[self.role] = self._on_posted
        self._renew(lease)
        self._tick_soon(leadership)
        self._schedule(TICK_S, self._read_reports)
        self._schedule(self._world.between(*HEARTBEATS_READ_S), lambda: self._read_heartbeats(leadership))
        if self.role == RESMAN:
            self._schedule(METERS_INTERVAL_S, lambda: self._read_meters(leadership))

    def _clear_leadership(self) -> None:
        if self._leadership is not None:
            self._bus.cancel(self.role, self._on_message)
            if self._bus.on_posted.get(self.role) == self._on_posted:
                del self._bus.on_posted[self.role]
        self._leadership = self._lease = None
        self._following = False
        self._inbox = LeaderInbox(INBOX_MAX)
        self._tick_due = False
        self._wake_s = None

    def _stand_by(self, why: str) -> None:
        self._world.record(f"{self.name} stands by: {why}")
        self._process += 1
        if self._lease is not None:
            self._nexus.release(self._lease.grant)
        self._clear_leadership()
        self._schedule(0.1, self._campaign)

    def _check_begun(self, leadership: Leadership) -> None:
        """Check the tables with which a leadership begins."""
        self._world.record(f"{self.name} begins {'warm' if leadership.was_warm else 'cold'}")
        check_begun(self.name, self.role, self._logic.tables, self._nexus)

    def _renew(self, lease: Lease) -> None:
        if self._nexus.renew(lease.grant):
            lease.renewed(self._world.now_s)
        else:
            lease.lose()
        self._schedule(lease.renew_every_s, lambda: self._renew(lease))

    def _read_heartbeats(self, leadership: Leadership) -> None:
        if not self.heartbeats_hang:
            self._inbox.put_latest("heartbeats", self._nexus.heartbeats(self.role))
            self._tick_soon(leadership)
        self._schedule(HEARTBEATS_INTERVAL_S, lambda: self._read_heartbeats(leadership))

    def _read_meters(self, leadership: Leadership) -> None:
        self._inbox.put_latest("meters", MetersRead(samples=self._nexus.meters()))
        self._tick_soon(leadership)
        self._schedule(METERS_INTERVAL_S, lambda: self._read_meters(leadership))

    def receive(self, event: Struct) -> None:
        """Handle ``event`` as a message that arrives now; dropped when this process does not lead."""
        self._on_message(event)

    def _on_message(self, event: Struct) -> None:
        if self._leadership is None:
            return
        if isinstance(event, Request) and not isinstance(event.body, Struct):
            event = msgspec.structs.replace(event, body=from_plain(event.body, BODIES[event.op]))
        if isinstance(event, HeartbeatsRead):
            self._inbox.put_latest("heartbeats", event)
        elif isinstance(event, AgentReport):
            self._inbox.put_reports((event,))
        else:
            self._inbox.put(event)
        self._tick_soon(self._leadership)

    def _on_posted(self) -> None:
        self._schedule(0.0, self._read_reports)

    def _read_reports(self) -> None:
        """Take reports into the inbox while it has room, as ``galaxy.driver.report_reader`` does."""
        if self._leadership is None or self.reports_hang or not self._inbox.has_room():
            return
        try:
            taken = self._nexus.take_reports(self._leadership.grant)
        except NotLeader:
            return
        assert not taken.refused, taken.refused
        if taken.reports:
            self._bus.delivered += len(taken.reports)
            self._inbox.put_reports(taken.reports)
            self._tick_soon(self._leadership)

    def _tick_soon(self, leadership: Leadership) -> None:
        if not self._tick_due:
            self._tick_due = True
            self._schedule(TICK_S, lambda: self._tick(leadership))

    def _tick(self, leadership: Leadership) -> None:
        if leadership is not self._leadership:
            return
        self._tick_due = False
        events = self._inbox.take(0.0)
        self._read_reports()
        if len(self._inbox):
            self._tick_soon(leadership)
        try:
            outcomes = leadership.advance(self._world.now_s, events)
        except NotLeader as error:
            self._stand_by(error.message)
            return
        self.ticks += 1
        if self._world.strikes("leader_crash_in_step") or self.ticks in self.crash_after_ticks:
            self.crash()
            return
        for outcome in outcomes:
            self._deliver(outcome)
        self._schedule_wake(leadership, outcomes[-1].wake_s)

    def _deliver(self, outcome: CommittedStep) -> None:
        for send in outcome.sends:
            self._bus.send(send)
        self._nexus.reply(outcome.replies)
        self._nexus.forget_agents(outcome.forget)

    def _schedule_wake(self, leadership: Leadership, wake_s: float | None) -> None:
        """Tick at ``wake_s``, unless a tick before that asks for another time."""
        self._wake_s = wake_s
        if wake_s is None:
            return

        def ring() -> None:
            if self._wake_s == wake_s:
                self._wake_s = None
                self._tick(leadership)

        self._schedule(max(wake_s - self._world.now_s, 0.005), ring)

    def table(self, name: str) -> Any:
        """Return a table of the leading logic, None when this process does not lead."""
        return None if self.logic is None else self.logic.tables[name]
