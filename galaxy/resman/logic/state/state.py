"""ResMan's memory: its tables and everything derived from them, kept in step by one write.

The containers table holds the current life of each slot under the slot's id, and each earlier
life that its agent has still to destroy under a key of its own (``leaving_key``).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import ContainerState, GroupOrder, Reason
from galaxy.model.messages.digest import digest_of_container
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, EndedGroup, Group
from galaxy.model.stored.table import Table
from galaxy.operations.records import RequestRecords
from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.groups.transitions import SlotEvent, after
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.container_index import INDEXES, OWING, PLACED, counts, leaving_key
from galaxy.resman.logic.state.quota_usage import Charges
from galaxy.scheduler.cluster_view import ClusterView, Standing
from galaxy.scheduler.liveness import Pulse
from galaxy.scheduler.requests import Load, Shape, bounded, shape_of
from galaxy.statemachine.backoff import AskLimiter
from galaxy.statemachine.timers import ResendTimers

SAFE_MODE: Final = "safe-mode"
"""Key of the row in table ``cluster`` that is there while ResMan is in safe mode."""

IDENTITY: Final = "all"
"""Key of the one row of table ``identity``: the last order that was applied."""


class ResManState:
    """Tables, and what follows from them: the scheduler's view, digests, debts, news to tell."""

    asks: dict[str, None]
    """Agents to ask for a full report in this step; this and the next ones go out with it."""
    presented: list[str]
    """Rows whose commands came due."""
    changed: dict[str, dict[str, None]]
    """Slots to tell of, by group."""
    answer: dict[str, int]
    """Groups asked about, each with the version that whoever asks has; 0 is none."""
    answer_identity: bool
    trace: list[TraceEvent]

    def __init__(self, config: ResManConfig) -> None:
        self.config = config
        self.groups: Table[Group] = Table("groups", Group)
        self.containers: Table[Container] = Table("containers", Container, INDEXES)
        self.agents: Table[AgentRecord] = Table("agents", AgentRecord)
        self.cluster: Table[Reason] = Table("cluster", Reason)
        self.ended: Table[EndedGroup] = Table("ended", EndedGroup)
        self.identity: Table[IdentityOrder] = Table("identity", IdentityOrder)
        self.requests = RequestRecords(config)
        self.begin(0, 0.0)

    def begin(self, epoch: int, now_s: float) -> None:
        """Forget what is volatile and derive it anew from the tables."""
        config = self.config
        self.epoch = epoch
        self.now_s = now_s
        self.view = ClusterView(making_max=config.making_max)
        self.pulse = Pulse(suspect_s=config.suspect_s, dead_s=config.dead_s, blind_s=config.blind_s)
        self.watches: dict[str, AgentWatch] = {}
        self._before: dict[str, AgentWatch] = {}
        """Watches that this step has stirred, as they were when it began."""
        self.owed = ResendTimers(config.resend_s, config.resend_s_max)
        self.unsent: dict[str, dict[str, None]] = {}
        """By agent, keys of containers whose commands wait until a heartbeat of the agent is read."""
        self.asked = AskLimiter(config.resend_s, config.resend_s_max)
        self.foreign: dict[str, str] = {}
        """Agents whose wire version we do not read, each with its boot."""
        self._not_foreign: dict[str, str | None] = {}
        """What this step has changed in ``foreign``, as it was when it began."""
        self._recovered = False
        """Whether what is to be told was left by a step that raised."""
        self._versions: dict[str, int] = {}
        self._version = 0
        self.requests.begin()
        self._clear_outbox()
        self._derive_all()

    def keep(self) -> None:
        """Begin a step: what the last one changed stays, and what it told is told, unless it raised."""
        self._before.clear()
        self._not_foreign.clear()
        if not self._recovered:
            self._clear_outbox()
        self._recovered = False

    def recover(self, now_s: float) -> None:
        """Derive anew what follows from the tables, which are as before the step that began last.

        What agents have said before it is known still; debts come due when they would have, and
        those that it presented in vain come due now. Whom it would have asked the next step asks, and
        groups that it would have told of are told of in full: versions that it used up were never
        heard of.
        """
        self.now_s = max(now_s, self.now_s)
        self.watches.update(self._before)
        self.watches = {name: watch for name, watch in self.watches.items() if name in self.agents}
        settled = {name: watch.settled_s for name, watch in self.watches.items()}
        old_view, old_owed, presented = self.view, self.owed, self.presented
        groups = {**self.changed, **self.answer}
        asks, answer_identity = self.asks, self.answer_identity
        self.pulse.renumber([old_view.row(name) for name in self.agents])
        self.view = ClusterView(making_max=self.config.making_max)
        self.owed = ResendTimers(self.config.resend_s, self.config.resend_s_max)
        self.unsent = {}
        self._versions = {group: seen for group, seen in self._versions.items() if group in self.groups}
        self._before.clear()
        self.requests.begin()
        for agent, boot in self._not_foreign.items():
            if boot is None:
                self.foreign.pop(agent, None)
            else:
                self.foreign[agent] = boot
        self._clear_outbox()
        self._derive_all()
        self.asks, self.answer_identity = asks, answer_identity
        known = (group for group in groups if group in self.groups or group in self.ended)
        self.answer = dict.fromkeys(known, 0)
        self._recovered = True
        self.owed.resume(old_owed, but=presented)
        for name, settled_s in settled.items():
            self.watches[name].settled_s = settled_s

    def _clear_outbox(self) -> None:
        self.asks, self.presented, self.changed = {}, [], {}
        self.answer, self.answer_identity = {}, False
        self.requests.replies = []
        self.trace = []

    def _derive_all(self) -> None:
        """Derive everything that follows from the tables, and from what is known of the agents."""
        self.shapes: dict[str, Shape] = {}
        self.later = ResendTimers(0.0, 0.0)
        self.fresh: dict[str, None] = {}
        self.stuck: dict[str, None] = {}
        self.lost: dict[str, None] = {}
        self.flaky: dict[str, None] = {}
        self.charges = Charges(self.identity.get(IDENTITY))
        self.ending: dict[str, None] = {}
        self.ended_first = deque(sorted(self.ended, key=lambda key: self.ended[key].at_s))
        for at, record in enumerate(self.agents.values()):
            watch = self.watch(record, self._standing(record, at))
            watch.row, watch.digest = at, 0
            if record.state is AgentState.DEAD:
                self.lost[record.agent] = None
            if watch.failures >= self.config.flaky_failures:
                self.flaky[record.agent] = None
                self.view.distrust(record.agent, True)
        for key, row in list(self.containers.items()):
            if row.group not in self.groups:
                self._mend(key, row)
        self._derive_rows()
        self.ending = {key: None for key in self.groups if self.groups[key].order.remove}

    def _standing(self, record: AgentRecord, row: int) -> Standing:
        """Return where an agent stands until the next beats are read: open only if it beat lately."""
        if record.state is AgentState.DEAD:
            return Standing.DEAD
        watch = self.watches.get(record.agent)
        well = record.state is AgentState.ALIVE and not (watch is not None and watch.troubled)
        return Standing.OPEN if well and self.pulse.fresh(row) else Standing.SUSPECT

    def end(self, group: str, epoch: int, serial: int) -> None:
        """Remember that a group is removed, and by which order; what is old or too much is forgotten."""
        self.ended.put(group, EndedGroup(group=group, epoch=epoch, serial=serial, at_s=self.now_s))
        self.ended_first.append(group)
        self.trim_ended()

    def trim_ended(self) -> None:
        """Forget removed groups that are old, or the oldest of too many."""
        config = self.config
        while self.ended_first:
            oldest = self.ended.get(self.ended_first[0])
            aged = oldest is None or self.now_s - oldest.at_s > config.removed_s
            if not aged and len(self.ended_first) <= config.removed_max:
                return
            group = self.ended_first.popleft()
            if oldest is not None and group not in self.ended_first:
                self.ended.drop(group)

    def watch(self, record: AgentRecord, standing: Standing) -> AgentWatch:
        """Take an agent into the view and watch it; what is known of it already is kept."""
        row = self.view.join(record.info, standing)
        watch = self.watches.get(record.agent)
        if watch is None:
            watch = self.watches[record.agent] = AgentWatch(row, record.info.boot)
        return watch

    def stir(self, agent: str) -> AgentWatch:
        """Return the watch of an agent that something is about to change; a step that raises does not."""
        watch = self.watches[agent]
        if agent not in self._before:
            self._before[agent] = watch.copy()
        return watch

    def refuse(self, agent: str, boot: str) -> bool:
        """Note that we do not read what an agent sends; return whether that is news in its boot."""
        before = self.foreign.get(agent)
        if before == boot:
            return False
        self._not_foreign.setdefault(agent, before)
        self.foreign[agent] = boot
        return True

    def shape(self, group: str) -> Shape:
        """Return what each container of a known group asks."""
        shape = self.shapes.get(group)
        if shape is None:
            demand = self.groups[group].order.demand
            shape = self.shapes[group] = shape_of(demand, require=self.config.require_enforced)
        return shape

    def happen(self, key: str, event: SlotEvent, *, charged: bool = False) -> bool:
        """Let ``event`` happen to a row; return whether it changed anything.

        ``charged`` says that the scheduler has charged the new place to its view already. An
        earlier life that has come to its end leaves the books.
        """
        row = self.containers[key]
        new = after(row, event, self.now_s, self.config)
        if new is row or new == row:
            return False
        if key != row.container and new.state is ContainerState.GONE:
            self.drop(key)
        else:
            self.write(key, new, charged=charged)
        return True

    def write(self, key: str, new: Container, *, charged: bool = False) -> None:
        """Write a container row and everything that follows from it."""
        old = self.containers.get(key)
        if new == old:
            return
        self.containers.put(key, new)
        self._derive(key, old, new, charged=charged)
        if key == new.container:
            self.changed.setdefault(new.group, {})[key] = None
        self.ending[new.group] = None

    def drop(self, key: str) -> None:
        """Take a row off the books."""
        row = self.containers.get(key)
        if row is not None:
            self.containers.drop(key)
            self._derive(key, row, None, charged=False)
            self.ending[row.group] = None

    def split(self, key: str) -> None:
        """Give the present life of a slot a row of its own, to be destroyed by its agent.

        The slot itself is for the caller to move on, in the same step.
        """
        row = self.containers[key]
        load = self._load(key, row)
        demand = self.groups[row.group].order.demand
        ports = {port.name: row.ports.get(port.name, port.port) for port in demand.ports}
        old = leaving_key(row)
        self.write(
            old,
            replace(
                row,
                state=ContainerState.DESTROYING,
                ports=ports,
                since_s=self.now_s,
                cpu_milli=load.cpu_milli,
                memory_bytes=load.memory_bytes,
                disk_bytes=load.disk_bytes,
            ),
        )

    def apply_identity(self, order: IdentityOrder) -> None:
        """Apply quotas and operators' keys unless the order is old; every order is acknowledged."""
        self.answer_identity = True
        last = self.identity.get(IDENTITY)
        if last is None or (order.epoch, order.serial) > (last.epoch, last.serial):
            self.identity.put(IDENTITY, order)
            self.fresh.update(dict.fromkeys(self.charges.set(order)))

    def charge(self, order: GroupOrder, times: int) -> None:
        """Count slots of a group against its owner's quota, or fewer of them."""
        if times:
            self.fresh.update(dict.fromkeys(self.charges.charge(order, times)))

    def tell(self, kind: str, subject: str, text: str = "") -> None:
        """Note something worth telling later."""
        self.trace.append(TraceEvent(kind=kind, subject=subject, text=text, at_s=self.now_s))

    def told(self, group: str, *, changed: bool) -> tuple[int, int]:
        """Return the version of what was told of ``group`` last, and of what is told now."""
        if group not in self._versions:
            self._version += 1
            self._versions[group] = self._version
        since = self._versions[group]
        if changed:
            self._version += 1
            self._versions[group] = self._version
        return since, self._versions[group]

    def forget_told(self, group: str) -> None:
        """Forget what was told of a group that is gone; its versions never come again."""
        self._versions.pop(group, None)

    def ask(self, agent: str) -> None:
        """Ask an agent for a full report, unless it was asked a moment ago."""
        if self.asked.due(agent, self.now_s):
            self.asks[agent] = None

    def find(self, agent: str, container: str, incarnation: int) -> str | None:
        """Return the key of one life on one agent."""
        row = self.containers.get(container)
        if row is not None and row.agent == agent and row.incarnation == incarnation:
            return container
        key = f"{container}#{incarnation}@{agent}"
        return key if key in self.containers else None

    def _mend(self, key: str, row: Container) -> None:
        """See off a slot whose group is not stored: a commit in parts may have been cut short."""
        if key == row.container:
            self.containers.drop(key)
            if row.agent:
                self.containers.put(leaving_key(row), replace(row, state=ContainerState.DESTROYING))

    def _derive(self, key: str, old: Container | None, new: Container | None, *, charged: bool) -> None:
        """Bring holdings, digests and debts from ``old`` to ``new``."""
        was = old.state if old else ContainerState.GONE
        now = new.state if new else ContainerState.GONE
        here = new.agent if new and now in PLACED else ""
        there = old.agent if old and was in PLACED else ""
        moved = here != there or (old and new and old.incarnation != new.incarnation)
        if there and moved:
            self.view.release(key)
        if new and here in self.watches:
            if moved and not charged:
                making = now is ContainerState.ALLOCATING
                self.view.hold(key, here, new.group, self._load(key, new), making=making)
            elif old and not charged and (old.state is not now or old.ports != new.ports):
                self.view.made(key, self._load(key, new))
        for row, state, agent in ((old, was, there), (new, now, here)):
            watch = self.watches.get(agent)
            if row and watch:
                watch.settled_s = self.pulse.read_s
                if state is ContainerState.READY:
                    watch.digest ^= digest_of_container(row.container, row.incarnation)
        counted = counts(key, old), counts(key, new)
        if counted[0] != counted[1]:
            row = new or old
            assert row is not None
            self.charge(self.groups[row.group].order, 1 if counted[1] else -1)
        if now not in OWING:
            self.owed.stop(key)
        elif was is not now or moved:
            self.owed.start(key, self.now_s)

    def _derive_rows(self) -> None:
        """Do what ``_derive`` does for each row of the tables, at once: there may be 100,000."""
        counted: dict[str, int] = {}
        held: list[tuple[str, str, str, Load, bool]] = []
        for key, row in self.containers.items():
            state, watch = row.state, self.watches.get(row.agent)
            if watch is not None and state in PLACED:
                making = state is ContainerState.ALLOCATING
                held.append((key, row.agent, row.group, self._load(key, row), making))
                watch.settled_s = self.pulse.read_s
                if state is ContainerState.READY:
                    watch.digest ^= digest_of_container(row.container, row.incarnation)
            if counts(key, row):
                counted[row.group] = counted.get(row.group, 0) + 1
            if state in OWING:
                self.owed.start(key, self.now_s)
            elif state is ContainerState.PENDING:
                self.fresh[row.group] = None
        self.view.hold_all(held)
        for group, times in counted.items():
            self.charge(self.groups[group].order, times)

    def _load(self, key: str, row: Container) -> Load:
        """Return what a placed row takes: its ports as far as they are known."""
        known = {port for port in row.ports.values() if port}
        if key != row.container:
            return Load(
                cpu_milli=bounded(row.cpu_milli),
                memory_bytes=bounded(row.memory_bytes),
                disk_bytes=bounded(row.disk_bytes),
                ports=tuple(sorted(known)),
                dynamic=sum(1 for port in row.ports.values() if not port),
            )
        load = self.shape(row.group).load
        chosen = known.difference(load.ports)
        if not chosen:
            return load
        return Load(
            load.cpu_milli,
            load.memory_bytes,
            load.disk_bytes,
            tuple(sorted(chosen.union(load.ports))),
            max(0, load.dynamic - len(chosen)),
        )
