"""ResMan's state: tables, what is derived from them, and what agents reported in this leadership."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import ContainerState, GroupOrder, Reason
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.trace import TraceEvent, event_id
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.groups.transitions import SlotEvent, after
from galaxy.resman.logic.placement.queue import PlacementQueue
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.container_index import (
    PLACED,
    counts,
    is_unacknowledged,
    old_incarnation_key,
    reservation_key,
)
from galaxy.resman.logic.state.ended_groups import EndedGroups
from galaxy.resman.logic.state.outbox import Outbox
from galaxy.resman.logic.state.quota_usage import QuotaUsage
from galaxy.resman.logic.state.status_versions import StatusVersions
from galaxy.resman.logic.state.tables import IDENTITY, ResManTables
from galaxy.scheduler.cluster_view import Charge, ClusterView, PlacementStatus
from galaxy.scheduler.liveness import HeartbeatAges
from galaxy.scheduler.quota import charged as quota_charge
from galaxy.scheduler.requests import Load, Shape, shape_of
from galaxy.statemachine.backoff import AskLimiter
from galaxy.statemachine.timers import ResendTimers


class Reservation(NamedTuple):
    """The group for which an agent is kept until ``until_s``, Unix seconds."""

    group: str
    until_s: float


class ResManState(ResManTables):
    """Everything that the parts of ResMan's logic read and write.

    There are three kinds of state:

    * Tables are durable.
    * The scheduler's view, shapes, quota usage, timers and sets of groups and agents are derived:
      ``derive`` rebuilds them at the start of a leadership and after a step that raised.
    * The rest belongs to one leadership: what agents reported (``watches``, ``heartbeats``,
      ``incompatible_agents``) and what was sent to others (``versions``, ``ask_limiter``, ids of
      events). A new leadership starts without it. ``recover`` restores it as it was before
      the step that raised, except that used versions and ids are not used again.
    """

    def __init__(self, config: ResManConfig) -> None:
        super().__init__(config)
        self.config = config
        self.begin(0, 0.0)

    def begin(self, epoch: int, now_s: float) -> None:
        """Start leadership ``epoch`` with the tables as they were loaded."""
        config = self.config
        self.epoch = epoch
        self.now_s = now_s
        self.heartbeats = HeartbeatAges(
            suspect_s=config.suspect_s, dead_s=config.dead_s, gap_s_max=config.gap_s_max
        )
        self.watches: dict[str, AgentWatch] = {}
        self.unread: set[str] = set()
        """Agents with a report that is not applied yet. They are asked for nothing and sent nothing again."""
        self.refused_agents: tuple[Reason, ...] = ()
        """Why heartbeats of agents are refused, one reason for each; ``galaxy agent list`` shows them."""
        self.incompatible_agents: dict[str, str] = {}
        """Agents whose wire version we do not read, each with its boot."""
        self.ask_limiter = AskLimiter(config.resend_first_s, config.resend_s_max)
        self.versions = StatusVersions()
        self.shorten_at_s: float | None = None
        """When every order that counts on a longer silence has expired; see ``agents.liveness_terms``."""
        self.resends_left = 0
        """Commands that this step may still send again."""
        self.cause = ""
        """Id of the message or timer that is being handled: the cause of events."""
        self._event_count = 0
        self._watches_before: dict[str, AgentWatch] = {}
        """The watches that this step has changed, as they were when the step began."""
        self._incompatible_before: dict[str, str | None] = {}
        """What this step has changed in ``incompatible_agents``, as it was when it began."""
        self._recovered = False
        """Whether the outbox holds unsent output of a step that raised."""
        self.derive()

    def begin_step(self, now_s: float) -> None:
        """Start a step: the changes of the last step are final, and its output was sent."""
        self.now_s = max(now_s, self.now_s)
        self.resends_left = self.config.resends_per_step_max
        self.cause = ""
        self.requests.nonces.accept()
        self._watches_before.clear()
        self._incompatible_before.clear()
        if not self._recovered:
            self.outbox = Outbox()
            self.requests.replies = []
        self._recovered = False

    def recover(self, now_s: float) -> None:
        """Undo the last step, which raised; the tables are rolled back already.

        Commands of that step come due now, and commands of earlier steps when they would have. The next
        step sends what the failed step did not: it asks the same agents for reports, and sends the status
        of the same groups in full, because the versions that the step used were never sent.
        """
        self.now_s = max(now_s, self.now_s)
        self.watches.update(self._watches_before)
        self.watches = {name: watch for name, watch in self.watches.items() if name in self.agents}
        self._watches_before.clear()
        for agent, boot in self._incompatible_before.items():
            if boot is None:
                self.incompatible_agents.pop(agent, None)
            else:
                self.incompatible_agents[agent] = boot
        self.heartbeats.renumber([self.view.row(name) for name in self.agents])
        self.versions.keep_only(self.groups)
        self.requests.nonces.discard()
        timers, unsent = self.unacknowledged, self.outbox
        self.derive()
        self.unacknowledged.resume(timers, but=unsent.due)
        self.outbox.report_requests = unsent.report_requests
        self.outbox.acknowledge_identity = unsent.acknowledge_identity
        groups = {**unsent.changed_slots, **unsent.status_requests}
        self.outbox.status_requests = {
            group: 0 for group in groups if group in self.groups or group in self.ended
        }
        self._recovered = True

    def derive(self) -> None:
        """Rebuild everything that follows from the tables, and from what is known of the agents."""
        config = self.config
        self.outbox = Outbox()
        self.requests.begin()
        self.view = ClusterView(creating_max=config.creating_max)
        self.shapes: dict[str, Shape] = {}
        """By group, what each of its containers takes; filled when first needed."""
        self.quota_usage = QuotaUsage(self.identity.get(IDENTITY))
        self.unacknowledged = ResendTimers(config.resend_first_s, config.resend_s_max)
        """Keys of containers with a command to resend until its outcome is reported."""
        self.unsent: dict[str, dict[str, None]] = {}
        """By agent, keys of containers whose commands wait until a heartbeat of the agent is read."""
        self.retry_timers = ResendTimers(0.0, 0.0)
        """Keys of slots that wait after a failure."""
        self.groups_to_place = PlacementQueue()
        """Groups whose waiting slots are to be tried on every agent."""
        self.explained_safe_mode: Reason | None = None
        """The reason of a safe mode that every waiting slot has been given."""
        self.refused_groups: dict[str, None] = {}
        """Groups that no agent had room for: tried again only on agents that have got more room since."""
        self.reservations: dict[str, Reservation] = {}
        """By agent, the group for whose next container it is kept."""
        self.groups_without_room: dict[str, None] = {}
        """Refused groups for which a later step looks for room, as the last one reached its limit."""
        self.reserve_again_s: dict[str, float] = {}
        """By group that had an agent reserved, when it may have one again, Unix seconds."""
        self.groups_to_check: dict[str, None] = {key: None for key in self.groups if self._is_removed(key)}
        """Groups that may have no container left."""
        self.leaves_to_check: dict[str, None] = {}
        """Containers of which it is to be decided whether they leave their agents."""
        self.draining: dict[str, None] = {}
        """Agents with a drain, whether it is done or not."""
        self.lost_agents: dict[str, None] = {}
        """Dead agents whose containers are not all replaced yet."""
        self.flaky_agents: dict[str, None] = {}
        self.ended_groups = EndedGroups(self.ended, age_s_max=config.removed_s, count_max=config.removed_max)
        self._derive_agents()
        for group in self.groups.without(map(str, self.containers.index_values("group"))):
            for key in self.containers.where("group", group):
                self._destroy_orphan(key, self.containers[key])
        self._derive_containers()

    # ---- agents

    def watch_agent(self, record: AgentRecord, status: PlacementStatus) -> AgentWatch:
        """Add an agent to the view and return its watch; an existing watch is kept."""
        row = self.view.join(record, status)
        watch = self.watches.get(record.agent)
        if watch is None:
            watch = self.watches[record.agent] = AgentWatch(row, record.info.boot)
        return watch

    def change_agent(self, record: AgentRecord) -> None:
        """Store what an operator changed of an agent; placement follows it from now on."""
        old = self.agents[record.agent]
        self.agents.put(record.agent, record)
        if record.drain is not None:
            self.draining[record.agent] = None
        else:
            self.draining.pop(record.agent, None)
        if (old.drain, old.pool, old.tags) != (record.drain, record.pool, record.tags):
            self.leaves_to_check.update(dict.fromkeys(self.containers.where("agent", record.agent)))
        status = PlacementStatus(int(self.view.status[self.view.row(record.agent)]))
        is_up = status in (PlacementStatus.OPEN, PlacementStatus.CORDONED)
        self.view.join(record, open_status(record) if is_up else status)

    def forget_agent(self, agent: str) -> None:
        """Drop an agent that holds no container. Its row in the view stays dead until the next ``derive``."""
        self.heartbeats.forget(self.watch_to_change(agent).row)
        self.view.set_status(agent, PlacementStatus.DEAD)
        self.agents.drop(agent)
        for rows in (
            self.watches,
            self.draining,
            self.lost_agents,
            self.flaky_agents,
            self.unsent,
            self.incompatible_agents,
        ):
            rows.pop(agent, None)

    def watch_to_change(self, agent: str) -> AgentWatch:
        """Return the watch of an agent, after saving a copy of it for ``recover``."""
        watch = self.watches[agent]
        if agent not in self._watches_before:
            self._watches_before[agent] = watch.copy()
        return watch

    def record_incompatible(self, agent: str, boot: str) -> bool:
        """Record that an agent sends another wire version; return whether that is new for its boot."""
        before = self.incompatible_agents.get(agent)
        if before == boot:
            return False
        self._incompatible_before.setdefault(agent, before)
        self.incompatible_agents[agent] = boot
        return True

    def request_report(self, agent: str) -> None:
        """Ask an agent for a full report, unless one is unread or it was asked recently (``ask_limiter``)."""
        if agent not in self.unread and self.ask_limiter.due(agent, self.now_s):
            self.outbox.report_requests[agent] = None

    def resend_to(self, agent: str) -> None:
        """Make the unacknowledged commands to an agent that was away due now: they may have expired."""
        for key in self.containers.where("unacknowledged", agent):
            self.unacknowledged.restart(key, self.now_s)

    # ---- groups and quotas

    def shape(self, group: str) -> Shape:
        """Return what each container of a known group takes."""
        shape = self.shapes.get(group)
        if shape is None:
            demand = self.groups[group].order.demand
            shape = self.shapes[group] = shape_of(demand, require=self.config.require_enforced)
        return shape

    def want_place(self, group: str) -> None:
        """Have the waiting slots of a group placed on any agent; a group that is gone has none."""
        known = self.groups.get(group)
        if known is not None:
            self.groups_to_place.add(group, known.order.priority)

    def apply_identity(self, order: IdentityOrder) -> None:
        """Apply quotas and users' keys unless the order is old; every order is acknowledged."""
        self.outbox.acknowledge_identity = True
        last = self.identity.get(IDENTITY)
        if last is None or (order.epoch, order.serial) > (last.epoch, last.serial):
            self.identity.put(IDENTITY, order)
            for group in self.quota_usage.set_quotas(order):
                self.want_place(group)

    def charge(self, order: GroupOrder, amount: Resources) -> None:
        """Count ``amount`` more of a group against its owner's quota; less, where it is negative."""
        if amount != NOTHING:
            for group in self.quota_usage.charge(order, amount):
                self.want_place(group)

    def quota_amount(self, group: Group, key: str, row: Container | None) -> Resources:
        """Return what a row counts against its owner's quota."""
        if row is None or not counts(key, row):
            return NOTHING
        if row.state is ContainerState.PENDING or row.size == row.sized == group.order.size:
            return self.quota_usage.each(group.order)
        amount = group.demand_of(row.size).resources.bounded().largest(row.resources)
        return quota_charge(amount, group.order.priority)

    def record(self, kind: str, subject: str, text: str = "") -> None:
        """Trace an event, caused by what is being handled."""
        self._event_count += 1
        self.outbox.trace.append(
            TraceEvent(
                kind=kind,
                subject=subject,
                text=text,
                at_s=self.now_s,
                id=event_id(RESMAN, self.epoch, self._event_count),
                cause=self.cause,
            )
        )

    # ---- containers

    def apply(self, key: str, event: SlotEvent, *, charged: bool = False) -> bool:
        """Apply ``event`` to a row; return whether it changed anything.

        ``charged`` says that the scheduler has charged the new place to its view already. An
        earlier incarnation that is gone is dropped.
        """
        row = self.containers[key]
        new = after(row, event, self.now_s, self.config)
        if new is row or new == row:
            return False
        if new.claimed and new.state is ContainerState.PENDING and row.size != self._order_size(row.group):
            new = replace(new, claimed=False)  # Its next place has another size.
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
        self._derive_change(key, old, new, charged=charged)
        if key == new.container:
            self.outbox.changed_slots.setdefault(new.group, {})[key] = None
        self.groups_to_check[new.group] = None

    def drop(self, key: str) -> None:
        """Drop a container row and everything that follows from it."""
        row = self.containers.get(key)
        if row is not None:
            self.containers.drop(key)
            self._derive_change(key, row, None, charged=False)
            self.groups_to_check[row.group] = None

    def detach_incarnation(self, key: str) -> None:
        """Move the current incarnation of a slot to a row of its own, which its agent must destroy.

        In the same step, the caller gives the slot its next state.
        """
        row = self.containers[key]
        demand = self.groups[row.group].demand_of(row.size)
        self.write(
            old_incarnation_key(row.container, row.incarnation, row.agent),
            replace(
                row,
                state=ContainerState.DESTROYING,
                ports={port.name: row.ports.get(port.name, port.port) for port in demand.ports},
                leave=None,
                since_s=self.now_s,
                resources=self.load_of(key, row).resources,
                resize=None,
            ),
        )

    def find(self, agent: str, container: str, incarnation: int) -> str | None:
        """Return the key of one incarnation on one agent."""
        row = self.containers.get(container)
        if row is not None and row.agent == agent and row.incarnation == incarnation:
            return container
        key = old_incarnation_key(container, incarnation, agent)
        return key if key in self.containers else None

    def load_of(self, key: str, row: Container) -> Load:
        """Return the load of a placed row, with its ports as far as they are known."""
        if key != row.container:
            known = {port for port in row.ports.values() if port}
            return Load(
                resources=row.resources.of_one_container(),
                ports=tuple(sorted(known)),
                dynamic=sum(1 for port in row.ports.values() if not port),
            )
        shape = self.shapes.get(row.group) or self.shape(row.group)
        load, ports = shape.load, row.ports
        group = self.groups[row.group]
        if not row.size == row.sized == group.order.size:
            most = group.demand_of(row.size).resources.bounded().largest(row.resources)
            load = Load(most, load.ports, load.dynamic)
        if not ports:
            return load
        if len(ports) == 1 and not load.ports:  # The usual case, and there may be 100,000 of it.
            (port,) = ports.values()
            return Load(load.resources, (port,), load.dynamic - 1 if load.dynamic else 0) if port else load
        known = {port for port in ports.values() if port}
        chosen = known.difference(load.ports)
        if not chosen:
            return load
        return Load(
            resources=load.resources,
            ports=tuple(sorted(chosen.union(load.ports))),
            dynamic=max(0, load.dynamic - len(chosen)),
        )

    # ---- derivation

    def _is_removed(self, group: str) -> bool:
        return self.groups[group].order.remove

    def _derive_agents(self) -> None:
        """Add all agents to the view. Until heartbeats are read, those are open that have a recent one."""
        joining: list[tuple[AgentRecord, PlacementStatus]] = []
        recent = self.heartbeats.are_recent(len(self.agents))
        for row, record in enumerate(self.agents.values()):
            watch = self.watches.get(record.agent)
            if watch is None:
                watch = self.watches[record.agent] = AgentWatch(row, record.info.boot)
            watch.row = row
            status = PlacementStatus.SUSPECT
            if record.state is AgentState.DEAD:
                status = PlacementStatus.DEAD
                self.lost_agents[record.agent] = None
            elif record.state is AgentState.ALIVE and recent[row] and not watch.in_trouble:
                status = open_status(record)
            joining.append((record, status))
        self.view.join_all(joining)
        for agent, watch in self.watches.items():
            if watch.failures >= self.config.flaky_failures:
                self.flaky_agents[agent] = None
                self.view.set_flaky(agent, True)
        for name, record in self.agents.items():
            if record.drain is not None:
                self.draining[name] = None
                self.leaves_to_check.update(dict.fromkeys(self.containers.where("agent", name)))

    def _destroy_orphan(self, key: str, row: Container) -> None:
        """Destroy a slot whose group is not stored, as an incomplete commit may have left it."""
        if key == row.container:
            self.containers.drop(key)
            if row.agent:
                leaving = old_incarnation_key(row.container, row.incarnation, row.agent)
                self.containers.put(leaving, replace(row, state=ContainerState.DESTROYING, leave=None))

    def _derive_containers(self) -> None:
        """Do what ``_derive_change`` does for every row, in few passes: there may be 100,000."""
        charges: dict[str, Charge] = {}
        counted: dict[str, int] = {}
        resized: dict[str, Resources] = {}
        single: dict[int, tuple[int, ...]] = {}  # Containers share the tuples of their ports.
        rows_of = {agent: watch.row for agent, watch in self.watches.items()}
        ready, last, load, size = ContainerState.READY, "", None, 0
        for key, row in self.containers.items():
            state, group, at = row.state, row.group, rows_of.get(row.agent)
            if state is ready and at is not None and key == row.container:
                # Nearly all are, so little is called here.
                if group != last:  # Containers of one group mostly follow each other.
                    last, load, size = group, self.shape(group).load, self.groups[group].order.size
                    counted.setdefault(group, 0)
                assert load is not None
                if row.size == row.sized == size:
                    counted[group] += 1
                    ports = row.ports
                    if len(ports) == 1 and not load.ports:
                        (port,) = ports.values()
                        known = single.setdefault(port, (port,))
                        one = Load(load.resources, known, max(0, load.dynamic - 1)) if port else load
                    else:
                        one = self.load_of(key, row)
                    charges[key] = Charge(at, group, one, False)
                    continue
            if state in PLACED and at is not None:
                creating = state is ContainerState.ALLOCATING
                charges[key] = Charge(at, group, self.load_of(key, row), creating)
            if counts(key, row):
                amount = self.quota_amount(self.groups[group], key, row)
                resized[group] = resized.get(group, NOTHING) + amount
            if is_unacknowledged(row):
                self.unacknowledged.start(key, self.now_s)
            elif state is ContainerState.PENDING:
                self.want_place(group)
        for key in self.containers.each("leaving", True):
            row = self.containers[key]
            if row.leave is not None and row.leave.to in rows_of:
                kept = Charge(rows_of[row.leave.to], row.group, self.shape(row.group).load, False)
                charges[reservation_key(key)] = kept
        self.view.charge_all(charges)
        for group, times in counted.items():
            order = self.groups[group].order
            self.charge(order, self.quota_usage.each(order) * times)
        for group, amount in resized.items():
            self.charge(self.groups[group].order, amount)

    def _derive_change(
        self, key: str, old: Container | None, new: Container | None, *, charged: bool
    ) -> None:
        """Bring charges and resends from ``old`` to ``new``."""
        was = old.state if old else ContainerState.GONE
        now = new.state if new else ContainerState.GONE
        here = new.agent if new and now in PLACED else ""
        there = old.agent if old and was in PLACED else ""
        moved = here != there or (old and new and old.incarnation != new.incarnation)
        if old and old.leave and old.leave.to and not (new and new.leave and new.leave.to == old.leave.to):
            self.view.release(reservation_key(key))
        if there and moved:
            self.view.release(key)
        if here and moved:
            self.leaves_to_check[key] = None
        if new and here in self.watches:
            if moved and not charged:
                creating = now is ContainerState.ALLOCATING
                self.view.charge(key, here, new.group, self.load_of(key, new), creating=creating)
            elif old and not charged and (old.state is not now or old.ports != new.ports):
                self.view.created(key, self.load_of(key, new))
            elif old and not charged and (old.size, old.resources) != (new.size, new.resources):
                self.view.recharge(key, self.load_of(key, new))
        for row, agent in ((old, there), (new, here)):
            watch = self.watches.get(agent)
            if row and watch:
                watch.changed_s = self.heartbeats.read_s
        if counts(key, old) or counts(key, new):
            row = new or old
            assert row is not None
            group = self.groups[row.group]
            before, after = self.quota_amount(group, key, old), self.quota_amount(group, key, new)
            if before is not after:
                self.charge(group.order, after - before)
        if new is None or not is_unacknowledged(new):
            self.unacknowledged.stop(key)
        elif was is not now or moved or old is None or not is_unacknowledged(old) or old.size != new.size:
            self.unacknowledged.start(key, self.now_s)

    def _order_size(self, group: str) -> int:
        known = self.groups.get(group)
        return 0 if known is None else known.order.size


def open_status(record: AgentRecord) -> PlacementStatus:
    """Return the status of an agent that is alive and can carry out orders."""
    return PlacementStatus.CORDONED if record.is_closed else PlacementStatus.OPEN
