"""Clusters that break one rule each, kept to show that the checkers notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.containers import Containers
from galaxy.agent.logic.records import HostedContainer
from galaxy.agent.logic.state import HostState
from galaxy.appmaster.logic import AppMaster
from galaxy.driver.interfaces import Grant
from galaxy.driver.leadership import CommittedStep, Leadership
from galaxy.ids import container_key
from galaxy.model.messages.agent import AgentInfo, AgentReport
from galaxy.model.messages.container import ContainerOrders, CreateContainer, GroupOrder, Reason
from galaxy.model.messages.pod import PodOrders
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Logic, Send, Step
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.quota_usage import Charges
from galaxy.testing.simulation.simulated_cluster import Variant


class Gullible(MemoryNexus):
    """A store that lets anybody write who once led: rule 2 without its fence."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        held = self._locks.get(grant.role)
        self._locks[grant.role] = (grant.owner, grant.epoch, self._now_s() + 1)
        super().commit(grant, serial, changes, trace)
        if held is None:
            del self._locks[grant.role]
        else:
            self._locks[grant.role] = held


class _Obedient(HostState):
    """An agent that obeys every epoch."""

    def accepts_epoch(self, role: str, epoch: int) -> bool:
        super().accepts_epoch(role, max(epoch, self.epochs[role].epoch if role in self.epochs else 0))
        return True


def obedient(info: AgentInfo) -> AgentLogic:
    """Return an agent without fencing."""
    return AgentLogic(info, _Obedient())


class _AnyLife(Containers):
    """Makes every life of a slot that it is told to make, whatever became of other ones."""

    def _create(self, order: CreateContainer, now_s: float) -> None:  # noqa: ARG002
        key = container_key(order.container, order.incarnation)
        if key not in self._state.containers:
            hosted = HostedContainer(container=order.container, incarnation=order.incarnation, order=order)
            self._state.put(hosted)


class AnyLifeAgent(AgentLogic):
    """An agent to which a late order for a life that is over is as good as any."""

    def __init__(self, info: AgentInfo) -> None:
        super().__init__(info)
        ports = (info.ports_low, info.ports_high)
        self._containers = _AnyLife(self._state, ports=ports, containers_max=info.containers_max)


class Forgotten(Leadership):
    """Sends before it commits, and then the commit is what a crash takes away."""

    def _commit(self, stepped: tuple[Step, list[TableChange], tuple[TraceEvent, ...]]) -> CommittedStep:
        step, changes, _ = stepped
        if self.ticks % 7 == 0 and changes:
            self._discard()
            return CommittedStep(sends=step.sends, replies=step.replies, wake_s=step.wake_s)
        return super()._commit(stepped)


class _Around:
    """A logic with another one inside."""

    def __init__(self, inner: Logic) -> None:
        self._inner = inner

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self._inner.tables

    def lead(self, epoch: int, now_s: float) -> None:
        self._inner.lead(epoch, now_s)

    def recover(self, now_s: float) -> None:
        self._inner.recover(now_s)


class OneLifeForAll(_Around):
    """A ResMan that takes a report of any life of a slot for one of the life that it wants."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        heard = [self._blur(event) if isinstance(event, AgentReport) else event for event in events]
        return self._inner.step(now_s, heard)

    def _blur(self, report: AgentReport) -> AgentReport:
        rows = self.tables["containers"]
        blurred = []
        for found in report.containers:
            row = rows.get(found.container)
            container_key = found.incarnation if row is None else row.incarnation
            blurred.append(msgspec.structs.replace(found, incarnation=container_key))
        return msgspec.structs.replace(report, containers=tuple(blurred))


class EventsOnly(_Around):
    """A leader that believes what it is told as it happens, and never asks what is there."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        heard = [_partial(e) if isinstance(e, AgentReport) and e.info is None else e for e in events]
        step = self._inner.step(now_s, heard)
        return msgspec.structs.replace(step, sends=tuple(_unasking(send) for send in step.sends))


def _partial(report: AgentReport) -> AgentReport:
    return msgspec.structs.replace(report, full=False)


def _unasking(send: Send) -> Send:
    if isinstance(send.body, PodOrders | ContainerOrders) and send.body.report:
        return msgspec.structs.replace(send, body=msgspec.structs.replace(send.body, report=False))
    return send


class _Boundless(Charges):
    """Counts as it should, and finds room for everything."""

    def __init__(self, counted: Charges) -> None:
        self.__dict__.update(counted.__dict__)

    def room(self, order: GroupOrder) -> tuple[int, Reason] | None:  # noqa: ARG002
        return None


class Generous(ResMan):
    """A ResMan that trusts AppMaster to have looked at quotas, and places what it is asked for."""

    def lead(self, epoch: int, now_s: float) -> None:
        super().lead(epoch, now_s)
        self.books.charges = _Boundless(self.books.charges)

    def recover(self, now_s: float) -> None:
        super().recover(now_s)
        self.books.charges = _Boundless(self.books.charges)


class Torn(ResMan):
    """A ResMan that goes on after a step that raised as if its books were still those of its tables."""

    def recover(self, now_s: float) -> None:
        pass


class Amnesiac(MemoryNexus):
    """A store that keeps nothing of the table of removed groups."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        super().commit(grant, serial, [change for change in changes if change.table != "ended"], trace)


BROKEN: Final[dict[str, Variant]] = {
    "send before commit": Variant(leadership=Forgotten),
    "ignore incarnation": Variant(resman=lambda: OneLifeForAll(ResMan()), agent=AnyLifeAgent),
    "ignore incarnation in reports only": Variant(resman=lambda: OneLifeForAll(ResMan())),
    "ignore incarnation in orders only": Variant(agent=AnyLifeAgent),
    "no fencing": Variant(nexus=Gullible, agent=obedient, trusting=True),
    "agents obey every epoch": Variant(agent=obedient),
    "events only, no reports": Variant(
        resman=lambda: EventsOnly(ResMan()), appmaster=lambda: EventsOnly(AppMaster())
    ),
    "removed groups forgotten": Variant(nexus=Amnesiac),
    "no quota": Variant(resman=Generous),
    "no recovery from a step that raised": Variant(resman=Torn),
    "no safe mode": Variant(resman=lambda: ResMan(ResManConfig(mass_loss_min=1000))),
}
"""By the rule that is broken."""
