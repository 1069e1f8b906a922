"""What leaves ResMan after a step: commands by agent, statuses of groups."""

from __future__ import annotations

from galaxy.ids import command_id
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    CreateContainer,
    DestroyContainer,
    GroupStatus,
    GroupStatuses,
    SlotStatus,
)
from galaxy.model.messages.identity import IdentityAck
from galaxy.model.messages.names import APPMASTER, CONTAINER_APPLY, GROUP_STATUS, agent_queue
from galaxy.model.step import Send
from galaxy.resman.logic.agents.reports import give_up
from galaxy.resman.logic.state.state import IDENTITY, ResManState


def overdue(books: ResManState) -> list[str]:
    """Return the rows whose commands are due, having given up those that took too long."""
    due = present(books)
    for key in due:
        row = books.containers[key]
        late = books.now_s - row.since_s > books.config.create_s_max
        if row.state is ContainerState.ALLOCATING and late:
            give_up(books, key)
    return [*due, *present(books)]


def present(books: ResManState) -> list[str]:
    """Return the rows whose commands come due now."""
    due = books.owed.pop(books.now_s)
    books.presented += due
    return due


class Dispatch:
    """Turns debts, questions and changes into messages; counts them, so that each has an id."""

    def __init__(self, books: ResManState) -> None:
        self.books = books
        self._serial = 0

    def commands(self, due: list[str], *, safe: bool) -> list[Send]:
        """Return one message for each agent that is owed something (more if it is very much)."""
        books = self.books
        create: dict[str, list[CreateContainer]] = {}
        destroy: dict[str, list[DestroyContainer]] = {}
        for key in dict.fromkeys(due):
            row = books.containers.get(key)
            if row is None or not row.agent:
                continue
            if not self._until_s(row.agent):
                books.unsent.setdefault(row.agent, {})[key] = None
            if row.state is ContainerState.ALLOCATING:
                order = books.groups[row.group].order
                create.setdefault(row.agent, []).append(
                    CreateContainer(
                        container=row.container,
                        incarnation=row.incarnation,
                        demand=order.demand,
                        priority=order.priority,
                    )
                )
            elif row.state is ContainerState.DESTROYING and not (safe and key != row.container):
                destroy.setdefault(row.agent, []).append(
                    DestroyContainer(container=row.container, incarnation=row.incarnation)
                )
            if not books.owed.first(key):
                books.ask(row.agent)
        sends: list[Send] = []
        for agent in {**create, **destroy, **books.asks}:
            if not self._until_s(agent):
                create.pop(agent, None)
                destroy.pop(agent, None)
                if agent not in books.asks:
                    continue
            sends += self._orders(agent, create.get(agent, []), destroy.get(agent, []))
        return sends

    def _orders(
        self, agent: str, create: list[CreateContainer], destroy: list[DestroyContainer]
    ) -> list[Send]:
        books, most = self.books, self.books.config.commands_max
        sends = []
        for start in range(0, max(len(create), len(destroy), 1), most):
            orders = ContainerOrders(
                agent=agent,
                epoch=books.epoch,
                create=tuple(create[start : start + most]),
                destroy=tuple(destroy[start : start + most]),
                report=start == 0 and agent in books.asks,
                until_s=self._until_s(agent),
            )
            sends.append(
                Send(
                    queue=agent_queue(agent),
                    task=CONTAINER_APPLY,
                    body=orders,
                    id=self._id(orders),
                )
            )
        return sends

    def _until_s(self, agent: str) -> float:
        """Return Redis' clock at which a command to ``agent`` expires: before its agent can be declared dead.

        0.0 while no heartbeat of ``agent`` was read in this leadership: then it gets no command, as
        none could be given a safe expiry. The command is sent when the heartbeat is read.
        """
        books = self.books
        watch = books.watches.get(agent)
        at_s = 0.0 if watch is None else books.pulse.at_s(watch.row)
        return at_s + books.config.command_life_s if at_s else 0.0

    def _id(self, orders: ContainerOrders) -> str:
        """Name a message after its one command, or after the leadership and a count."""
        match orders:
            case ContainerOrders(create=(one,), destroy=()):
                return command_id("create", one.container, one.incarnation)
            case ContainerOrders(create=(), destroy=(one,)):
                return command_id("destroy", one.container, one.incarnation)
        self._serial += 1
        return f"orders:{orders.agent}:{self.books.epoch}:{self._serial}"

    def statuses(self) -> list[Send]:
        """Return one message with every group that was asked about or changed.

        Who asks and has missed nothing is told what changed, not everything.
        """
        books = self.books
        statuses = [self._status(group) for group in {**books.answer, **books.changed}]
        sends: list[Send] = []
        part: list[GroupStatus] = []
        slots = 0
        for status in statuses:
            part.append(status)
            slots += len(status.slots) + 1
            if slots >= books.config.slots_per_message:
                sends.append(self._told(part))
                part, slots = [], 0
        if part or (books.answer_identity and not sends):
            sends.append(self._told(part))
        return sends

    def _told(self, statuses: list[GroupStatus]) -> Send:
        self._serial += 1
        return Send(
            queue=APPMASTER,
            task=GROUP_STATUS,
            body=GroupStatuses(statuses=tuple(statuses), identity=self._identity()),
            id=f"status:{self.books.epoch}:{self._serial}",
            expires_s=self.books.config.command_life_s,
        )

    def _identity(self) -> IdentityAck | None:
        """Return the last order applied, in each step that got one."""
        books = self.books
        last = books.identity.get(IDENTITY)
        return IdentityAck(epoch=last.epoch, serial=last.serial) if books.answer_identity and last else None

    def _status(self, group: str) -> GroupStatus:
        books = self.books
        known = books.groups.get(group)
        if known is None:
            ended = books.ended.get(group)
            serial = 0 if ended is None else ended.serial
            return GroupStatus(group=group, epoch=books.epoch, serial=serial, full=True, known=False)
        changed = books.changed.get(group, {})
        since, version = books.told(group, changed=bool(changed))
        full = books.answer.get(group, since) != since
        keys = books.containers.where("group", group) if full else tuple(changed)
        slots = []
        for key in keys:
            row = books.containers.get(key)
            if row is None or row.container != key:
                continue
            record = books.agents.get(row.agent)
            slots.append(
                SlotStatus(
                    container=key,
                    incarnation=row.incarnation,
                    state=row.state,
                    agent=row.agent,
                    address=record.info.address if record else "",
                    ports=row.ports,
                    reason=row.reason,
                )
            )
        return GroupStatus(
            group=group, epoch=books.epoch, serial=known.order.serial, slots=tuple(slots), full=full,
            since=since, version=version,
        )  # fmt: skip
