"""Clusters that break one rule each. Tests use them to show that the checkers notice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.containers import Containers
from galaxy.agent.logic.effects import Effect, ResizeContainer
from galaxy.agent.logic.events import ContainerResized
from galaxy.agent.logic.records import HostedContainer
from galaxy.agent.logic.state import HostState
from galaxy.appmaster.logic import AppMaster
from galaxy.appmaster.logic.jobs import pods
from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant
from galaxy.driver.leadership import CommittedStep, Leadership
from galaxy.driver.warm_tables import WarmTables
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentReport
from galaxy.model.messages.container import ContainerOrders, CreateContainer, GroupOrder, Reason
from galaxy.model.messages.pod import PodOrders
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.step import Logic, Send, Step
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.quota_usage import QuotaUsage
from galaxy.testing.simulation.simulated_cluster import Variant


class UnfencedNexus(MemoryNexus):
    """A store without fencing: every former leader may still commit."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        lock = self._locks.get(grant.role)
        self._locks[grant.role] = (grant.owner, grant.epoch, self._now_s() + 1)
        super().commit(grant, serial, changes, trace)
        if lock is None:
            del self._locks[grant.role]
        else:
            self._locks[grant.role] = lock


class _UnfencedHostState(HostState):
    """Agent state that accepts orders of every epoch."""

    def accepts_epoch(self, role: str, epoch: int) -> bool:
        super().accepts_epoch(role, max(epoch, self.epochs[role].epoch if role in self.epochs else 0))
        return True


def unfenced_agent(info: AgentInfo) -> AgentLogic:
    """Return an agent without fencing."""
    return AgentLogic(info, _UnfencedHostState())


class _AnyIncarnation(Containers):
    """Creates every incarnation that is ordered, even one that existed before."""

    def _create(self, order: CreateContainer, now_s: float) -> None:  # noqa: ARG002
        key = container_key(order.container, order.incarnation)
        if key not in self._state.containers:
            hosted = HostedContainer(container=order.container, incarnation=order.incarnation, order=order)
            self._state.put(hosted)


class AnyIncarnationAgent(AgentLogic):
    """An agent that obeys late orders for incarnations that have ended."""

    def __init__(self, info: AgentInfo) -> None:
        super().__init__(info)
        ports = (info.ports_low, info.ports_high)
        self._containers = _AnyIncarnation(self._state, ports=ports, containers_max=info.containers)


class SendBeforeCommit(Leadership):
    """Sends messages before the commit, and sometimes loses the commit."""

    def _commit(self, stepped: tuple[Step, list[TableChange], tuple[TraceEvent, ...]]) -> CommittedStep:
        step, changes, _ = stepped
        if self.ticks % 7 == 0 and changes:
            self._discard()
            return CommittedStep(sends=step.sends, replies=step.replies, wake_s=step.wake_s)
        return super()._commit(stepped)


class _LogicWrapper:
    """Logic that delegates to other logic."""

    def __init__(self, inner: Logic) -> None:
        self._inner = inner

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self._inner.tables

    @property
    def state(self) -> Any:
        """The inner logic's state, which checkers read."""
        return self._inner.state  # type: ignore[attr-defined]

    def lead(self, epoch: int, now_s: float) -> None:
        self._inner.lead(epoch, now_s)

    def recover(self, now_s: float) -> None:
        self._inner.recover(now_s)


class AnyIncarnationResMan(_LogicWrapper):
    """A ResMan that takes a report of any incarnation for one of the current incarnation."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        changed = [
            self._with_stored_incarnations(event) if isinstance(event, AgentReport) else event
            for event in events
        ]
        return self._inner.step(now_s, changed)

    def _with_stored_incarnations(self, report: AgentReport) -> AgentReport:
        rows = self.tables["containers"]
        changed = []
        for observed in report.containers:
            row = rows.get(observed.container)
            incarnation = observed.incarnation if row is None else row.incarnation
            changed.append(msgspec.structs.replace(observed, incarnation=incarnation))
        return msgspec.structs.replace(report, containers=tuple(changed))


class NoFullReports(_LogicWrapper):
    """A leader that relies on event reports and never asks for a full report."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        partial = [_partial(e) if isinstance(e, AgentReport) and e.info is None else e for e in events]
        step = self._inner.step(now_s, partial)
        return msgspec.structs.replace(
            step, sends=tuple(_without_report_request(send) for send in step.sends)
        )


def _partial(report: AgentReport) -> AgentReport:
    return msgspec.structs.replace(report, full=False)


def _without_report_request(send: Send) -> Send:
    if isinstance(send.body, PodOrders | ContainerOrders) and send.body.report:
        return msgspec.structs.replace(send, body=msgspec.structs.replace(send.body, report=False))
    return send


class _UnlimitedQuota(QuotaUsage):
    """Counts usage correctly but allows everything."""

    def __init__(self, counted: QuotaUsage) -> None:
        self.__dict__.update(counted.__dict__)

    def room(self, order: GroupOrder) -> tuple[int, Reason] | None:  # noqa: ARG002
        return None

    def refusal(self, order: GroupOrder, grown: Resources) -> Reason | None:  # noqa: ARG002
        return None


class QuotaIgnoringResMan(ResMan):
    """A ResMan that does not enforce quotas."""

    def lead(self, epoch: int, now_s: float) -> None:
        super().lead(epoch, now_s)
        self.state.quota_usage = _UnlimitedQuota(self.state.quota_usage)

    def recover(self, now_s: float) -> None:
        super().recover(now_s)
        self.state.quota_usage = _UnlimitedQuota(self.state.quota_usage)


class _Unsearched(Table[Quota]):
    """Quotas that are stored and listed, and not found when a job is checked."""

    def where(self, index: str, value: Hashable) -> tuple[str, ...]:  # noqa: ARG002
        return ()


class QuotaIgnoringAppMaster(AppMaster):
    """An AppMaster that accepts jobs beyond every quota."""

    def __init__(self) -> None:
        super().__init__()
        self.state.quotas.__class__ = _Unsearched


class LeavesLimitsAgent(AgentLogic):
    """An agent that reports new limits as in force without setting them."""

    def step(self, now_s: float, events: Sequence[Struct]) -> tuple[Effect, ...]:
        effects = super().step(now_s, events)
        done = [
            ContainerResized(
                container=effect.hosted.container,
                incarnation=effect.hosted.incarnation,
                size=effect.hosted.order.size,
            )
            for effect in effects
            if isinstance(effect, ResizeContainer)
        ]
        if done:
            effects = (*effects, *super().step(now_s, done))
        return tuple(effect for effect in effects if not isinstance(effect, ResizeContainer))


class OptimisticResMan(ResMan):
    """A ResMan that counts a smaller size before its agent has reported that it is in force."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        stepped = super().step(now_s, events)
        for key, row in list(self.state.containers.items()):
            if row.sized != row.size and row.resources != NOTHING and key == row.container:
                self.state.write(key, replace(row, resources=NOTHING))
        return stepped


class ForgetfulResMan(ResMan):
    """A ResMan that accounts what containers hold from when it began to lead."""

    def lead(self, epoch: int, now_s: float) -> None:
        super().lead(epoch, now_s)
        for key, account in list(self.state.accounts.items()):
            self.state.accounts.put(key, msgspec.structs.replace(account, since_s=now_s))


class NoRecoveryResMan(ResMan):
    """A ResMan that keeps its derived state after a step that raised, although tables were rolled back."""

    def recover(self, now_s: float) -> None:
        pass


class NexusWithoutRemovedGroups(MemoryNexus):
    """A store that drops the table of removed groups."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        super().commit(grant, serial, [change for change in changes if change.table != "ended"], trace)


class ImpatientAppMaster(AppMaster):
    """An AppMaster that has every pod of a drained host leave at once."""

    def _reconcile(self) -> None:
        for pod in list(self.state.pods.values()):
            if pod.leave is not None and pod.leave.to and pod.placed and not pod.is_evacuating:
                pods.write(self.state, pod, evacuates=pod.incarnation)
        super()._reconcile()


class UnverifiedTables(WarmTables):
    """A standby that begins with the rows that it has, although the last leader has committed since."""

    def catch_up(self) -> bool:
        return self.position is not None


class NexusWithoutGaps(MemoryNexus):
    """A change feed whose readers continue after a gap as if nothing were missing."""

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        read = super().read_changes(role, after, timeout_s)
        return read if after is None else msgspec.structs.replace(read, reload=False)


BROKEN: Final[dict[str, Variant]] = {
    "send before commit": Variant(leadership=SendBeforeCommit),
    "ignore incarnation": Variant(resman=lambda: AnyIncarnationResMan(ResMan()), agent=AnyIncarnationAgent),
    "ignore incarnation in orders only": Variant(agent=AnyIncarnationAgent),
    "no fencing": Variant(nexus=UnfencedNexus, agent=unfenced_agent, ignore_lease=True),
    "agents obey every epoch": Variant(agent=unfenced_agent),
    "events only, no reports": Variant(
        resman=lambda: NoFullReports(ResMan()), appmaster=lambda: NoFullReports(AppMaster())
    ),
    "removed groups not stored": Variant(nexus=NexusWithoutRemovedGroups),
    "drain without regard for the jobs' pace": Variant(appmaster=ImpatientAppMaster),
    "no quota": Variant(resman=QuotaIgnoringResMan),
    "jobs are accepted beyond the quota": Variant(appmaster=QuotaIgnoringAppMaster),
    "limits reported but not set": Variant(agent=LeavesLimitsAgent),
    "smaller sizes count at once": Variant(resman=OptimisticResMan),
    "accounts begin with each leader": Variant(resman=ForgetfulResMan),
    "no recovery from a step that raised": Variant(resman=NoRecoveryResMan),
    "standby begins without reading the rest of the feed": Variant(warm=UnverifiedTables),
    "standby continues after a gap in the feed": Variant(nexus=NexusWithoutGaps),
    "no safe mode": Variant(resman=lambda: ResMan(ResManConfig(mass_loss_min=1000))),
}
"""Broken clusters by the rule that they break."""
