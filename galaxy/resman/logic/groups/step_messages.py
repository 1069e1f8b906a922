"""The messages of a step: commands to agents, statuses of groups to AppMaster."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.ids import command_id
from galaxy.model.messages.container import (
    RESIZE_HELD,
    RESIZE_MOVES,
    ContainerOrders,
    ContainerState,
    CreateContainer,
    DestroyContainer,
    GroupStatus,
    GroupStatuses,
    Leave,
    Reason,
    SlotStatus,
)
from galaxy.model.messages.identity import IdentityAck
from galaxy.model.messages.names import APPMASTER, CONTAINER_APPLY, GROUP_STATUS, agent_queue
from galaxy.model.step import Send
from galaxy.model.stored.container import Container
from galaxy.resman.logic.agents.failures import give_up
from galaxy.resman.logic.agents.liveness_terms import own_terms
from galaxy.resman.logic.state.container_index import is_resizing
from galaxy.resman.logic.state.state import ResManState
from galaxy.resman.logic.state.tables import IDENTITY


def pop_due(state: ResManState) -> list[str]:
    """Return the keys of containers whose commands are due now.

    Beyond a limit, commands that were sent before wait: many outcomes are probably not read yet.
    """
    timers, due = state.unacknowledged, []
    for key in timers.pop(state.now_s):
        if timers.is_first_send(key):
            due.append(key)
        elif state.resends_left > 0:
            state.resends_left -= 1
            due.append(key)
        else:
            timers.postpone(key, state.now_s + state.config.resend_first_s)
    state.outbox.due += due
    return due


def pop_due_and_give_up(state: ResManState) -> list[str]:
    """Give up containers that take too long to create; return the keys whose commands are due."""
    due = pop_due(state)
    for key in due:
        row = state.containers[key]
        late = state.now_s - row.since_s > state.config.create_s_max
        if row.state is ContainerState.ALLOCATING and late:
            give_up(state, key)
    return [*due, *pop_due(state)]


class StepMessages:
    """Builds the messages of a step; each has an id of its own."""

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self._message_count = 0
        self._safe_mode: Reason | None = None
        """The safe mode that AppMaster knows of leaving slots."""

    def orders(self, due: list[str], *, safe: bool) -> list[Send]:
        """Return the messages to agents: commands for the keys ``due``, and requests for reports.

        In safe mode (``safe``) no stray container is destroyed.
        """
        state = self.state
        create: dict[str, list[CreateContainer]] = {}
        destroy: dict[str, list[DestroyContainer]] = {}
        for key in dict.fromkeys(due):
            row = state.containers.get(key)
            if row is None or not row.agent:
                continue
            if not self._until_s(row.agent):
                state.unsent.setdefault(row.agent, {})[key] = None
            is_first_send = state.unacknowledged.is_first_send(key)
            if row.agent in state.unread and not is_first_send:
                continue  # The unread report may acknowledge it.
            resizes = row.state is ContainerState.READY and is_resizing(row)
            if row.state is ContainerState.ALLOCATING or resizes:
                group = state.groups[row.group]
                create.setdefault(row.agent, []).append(
                    CreateContainer(
                        container=row.container,
                        incarnation=row.incarnation,
                        demand=group.demand_of(row.size),
                        priority=group.order.priority,
                        size=row.size,
                    )
                )
            elif row.state is ContainerState.DESTROYING and not (safe and key != row.container):
                destroy.setdefault(row.agent, []).append(
                    DestroyContainer(container=row.container, incarnation=row.incarnation)
                )
            if not is_first_send and not resizes:  # An agent answers every order of a size.
                state.request_report(row.agent)
        report_requests = state.outbox.report_requests
        sends: list[Send] = []
        for agent in {**create, **destroy, **report_requests}:
            if not self._until_s(agent):
                create.pop(agent, None)
                destroy.pop(agent, None)
                if agent not in report_requests:
                    continue
            sends += self._orders_of(agent, create.get(agent, []), destroy.get(agent, []))
        return sends

    def statuses(self, safe_mode: Reason | None = None) -> list[Send]:
        """Return the messages to AppMaster: statuses of groups that it asked about or that changed.

        If AppMaster asks and has missed nothing, only changed slots are sent. In ``safe_mode`` no slot may
        leave its agent.
        """
        state, outbox = self.state, self.state.outbox
        if safe_mode != self._safe_mode:
            self._safe_mode = safe_mode
            for key, row in state.containers.items():
                if row.resize is not None and row.resize.code == RESIZE_MOVES:
                    outbox.changed_slots.setdefault(row.group, {})[key] = None
            for key in state.containers.each("leaving", True):
                outbox.changed_slots.setdefault(state.containers[key].group, {})[key] = None
        statuses = [self._status(group) for group in {**outbox.status_requests, **outbox.changed_slots}]
        sends: list[Send] = []
        part: list[GroupStatus] = []
        slots = 0
        for status in statuses:
            part.append(status)
            slots += len(status.slots) + 1
            if slots >= state.config.slots_per_message_max:
                sends.append(self._status_message(part))
                part, slots = [], 0
        if part or (outbox.acknowledge_identity and not sends):
            sends.append(self._status_message(part))
        return sends

    def _orders_of(
        self, agent: str, create: list[CreateContainer], destroy: list[DestroyContainer]
    ) -> list[Send]:
        state, most = self.state, self.state.config.commands_per_message_max
        sends = []
        for start in range(0, max(len(create), len(destroy), 1), most):
            orders = ContainerOrders(
                agent=agent,
                epoch=state.epoch,
                create=tuple(create[start : start + most]),
                destroy=tuple(destroy[start : start + most]),
                report=start == 0 and agent in state.outbox.report_requests,
                until_s=self._until_s(agent),
            )
            task, queue = CONTAINER_APPLY, agent_queue(agent)
            sends.append(Send(queue=queue, task=task, body=orders, id=self._orders_id(orders)))
        return sends

    def _until_s(self, agent: str) -> float:
        """Return when a command to ``agent`` expires by Redis' clock: before the agent can be declared dead.

        0.0 while no heartbeat of ``agent`` was read in this leadership. Then no safe expiry is known, so
        the command is sent only when a heartbeat is read.
        """
        state = self.state
        watch = state.watches.get(agent)
        at_s = 0.0 if watch is None else state.heartbeats.at_s(watch.row)
        return at_s + state.config.order_ttl_s if at_s else 0.0

    def _orders_id(self, orders: ContainerOrders) -> str:
        """Return the id of the command if there is one, otherwise an id from the epoch and a counter."""
        match orders:
            case ContainerOrders(create=(one,), destroy=()) if not one.size:
                return command_id("create", one.container, one.incarnation)
            case ContainerOrders(create=(), destroy=(one,)):
                return command_id("destroy", one.container, one.incarnation)
        self._message_count += 1
        return f"orders:{orders.agent}:{self.state.epoch}:{self._message_count}"

    def _status_message(self, statuses: list[GroupStatus]) -> Send:
        self._message_count += 1
        return Send(
            queue=APPMASTER,
            task=GROUP_STATUS,
            body=GroupStatuses(
                statuses=tuple(statuses), identity=self._identity_ack(), liveness=own_terms(self.state)
            ),
            id=f"status:{self.state.epoch}:{self._message_count}",
            expires_s=self.state.config.order_ttl_s,
        )

    def _identity_ack(self) -> IdentityAck | None:
        """Return the last order that was applied, if AppMaster sent one in this step."""
        last = self.state.identity.get(IDENTITY)
        if last is None or not self.state.outbox.acknowledge_identity:
            return None
        return IdentityAck(epoch=last.epoch, serial=last.serial)

    def _status(self, group: str) -> GroupStatus:
        state = self.state
        known = state.groups.get(group)
        if known is None:
            ended = state.ended.get(group)
            serial = 0 if ended is None else ended.serial
            return GroupStatus(group=group, epoch=state.epoch, serial=serial, full=True, known=False)
        changed = state.outbox.changed_slots.get(group, {})
        since, version = state.versions.next(group, changed=bool(changed))
        full = state.outbox.status_requests.get(group, since) != since
        keys = state.containers.where("group", group) if full else tuple(changed)
        slots = (self._slot_status(key) for key in keys)
        return GroupStatus(
            group=group,
            epoch=state.epoch,
            serial=known.order.serial,
            slots=tuple(slot for slot in slots if slot is not None),
            full=full,
            since=since,
            version=version,
        )

    def _slot_status(self, key: str) -> SlotStatus | None:
        """Return the status of a slot; None for an earlier incarnation and for what is gone."""
        row = self.state.containers.get(key)
        if row is None or row.container != key:
            return None
        record = self.state.agents.get(row.agent)
        return SlotStatus(
            container=key,
            incarnation=row.incarnation,
            state=row.state,
            agent=row.agent,
            address=record.info.address if record else "",
            ports=row.ports,
            reason=row.reason,
            leave=self._leave_of(row),
            size=row.sized,
            resize=self._resize_of(row),
        )

    def _resize_of(self, row: Container) -> Reason | None:
        if row.resize is None or row.resize.code != RESIZE_MOVES or self._safe_mode is None:
            return row.resize
        message = f"{row.resize.message} once safe mode has ended"
        return replace(row.resize, code=RESIZE_HELD, message=message)

    def _leave_of(self, row: Container) -> Leave | None:
        leave, safe_mode = row.leave, self._safe_mode
        if leave is None or safe_mode is None:
            return leave
        return replace(leave, to="", evict=False, blocked=safe_mode)
