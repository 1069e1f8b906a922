"""Small orders and reports for the tests of the agent."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.events import (
    ContainerLaunched,
    HostInspected,
    RedisClockRead,
    ReportPublished,
    WorkerConnected,
    WorkerReported,
)
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentReport
from galaxy.model.messages.container import (
    ContainerOrders,
    CreateContainer,
    Demand,
    DestroyContainer,
    PortDemand,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodOrders, PodState

POD = "web-abc123.0"
FAR_S = 1e12
"""An expiry that no test reaches."""


def info(*, ports: tuple[int, int] = (20000, 20009), containers_max: int = 100) -> AgentInfo:
    return AgentInfo(
        agent="h1",
        address="127.0.0.1",
        boot="boot-1",
        version="0",
        cpu_milli=4000,
        memory_bytes=2**32,
        disk_bytes=2**36,
        ports_low=ports[0],
        ports_high=ports[1],
        containers=containers_max,
    )


def demand(*ports: PortDemand) -> Demand:
    return Demand(
        tasks=(TaskDemand(name="main", cpu_milli=100, memory_bytes=2**26),),
        workspace=VolumeDemand(path="/home/pod", size_bytes=2**24),
        ports=ports,
    )


def create(container: str = POD, incarnation: int = 1, *ports: PortDemand) -> CreateContainer:
    return CreateContainer(container=container, incarnation=incarnation, demand=demand(*ports))


def creates(*orders: CreateContainer, epoch: int = 1) -> ContainerOrders:
    return ContainerOrders(agent="h1", epoch=epoch, until_s=FAR_S, create=orders)


def destroys(container: str = POD, incarnation: int = 1, *, epoch: int = 1) -> ContainerOrders:
    order = DestroyContainer(container=container, incarnation=incarnation)
    return ContainerOrders(agent="h1", epoch=epoch, until_s=FAR_S, destroy=(order,))


def order(generation: int = 1, *, incarnation: int = 1, pod: str = POD, **more: bool) -> PodOrder:
    return PodOrder(
        pod=pod,
        incarnation=incarnation,
        generation=generation,
        job="web-abc123",
        index=0,
        revision=1,
        run=True,
        tasks=(),
        stop_timeout=10.0,
        **more,
    )


def orders(*pods: PodOrder, epoch: int = 1, report: bool = False) -> PodOrders:
    return PodOrders(agent="h1", epoch=epoch, until_s=FAR_S, orders=pods, report=report)


def launched(container: str = POD, incarnation: int = 1, pid: int = 4711) -> ContainerLaunched:
    return ContainerLaunched(container=container, incarnation=incarnation, pid=pid)


def reported(
    state: PodState, generation: int = 1, *, incarnation: int = 1, pod: str = POD, healthy: bool = False
) -> WorkerReported:
    observed = ObservedPod(
        pod=pod, incarnation=incarnation, generation=generation, state=state, healthy=healthy
    )
    return WorkerReported(container=pod, incarnation=incarnation, pod=observed)


def connected(container: str = POD, incarnation: int = 1) -> WorkerConnected:
    return WorkerConnected(container=container, incarnation=incarnation)


class Driven:
    """An agent's logic, stepped and committed as its shell does, with its own clock."""

    def __init__(self, logic: AgentLogic | None = None, *, uids: tuple[int, int] | None = None) -> None:
        self.logic = logic or AgentLogic(info())
        self.uids = uids
        if uids is not None:
            self.logic.set_uid_range(*uids)
        self.now_s = 100.0
        self.effects: list[Struct] = []
        self.disk: dict[str, dict[str, bytes]] = {name: {} for name in self.logic.tables}

    def begin(self) -> Driven:
        """Start on a host without containers, and publish the first full reports."""
        self.step(HostInspected(running=()), RedisClockRead(redis_s=self.now_s))
        self.reports()
        return self

    def step(self, *events: Struct) -> list[Struct]:
        self.effects = list(self.logic.step(self.now_s, events))
        self.commit()
        return self.effects

    def commit(self) -> None:
        for table in self.logic.tables.values():
            for change in table.changes():
                if change.value is None:
                    self.disk[change.table].pop(change.key, None)
                else:
                    self.disk[change.table][change.key] = change.value
            table.accept()

    def restart(self) -> Driven:
        """Return a new agent over the committed tables."""
        again = Driven(AgentLogic(self.logic.info), uids=self.uids)
        again.now_s, again.disk = self.now_s, self.disk
        for name, table in again.logic.tables.items():
            table.load(again.disk[name].items())
        again.logic.resume()
        return again

    def reports(self, *, ok: bool = True) -> list[AgentReport]:
        """Advance time until no report is due, and return the published reports."""
        published: list[AgentReport] = []
        for _ in range(20):
            flush = self.logic.flush(self.now_s)
            for due in flush.reports:
                published.append(due.report)
                self.step(ReportPublished(role=due.role, ok=ok))
            if not ok:
                return published
            self.now_s += 0.02
            if not flush.reports and (flush.wake_s is None or flush.wake_s > self.now_s + 1):
                return published
        raise AssertionError("reports never end")

    def reported_states(self) -> dict[str, str]:
        """Return the containers in the next reports, with their states."""
        return {
            f"{one.container}/{one.incarnation}": str(one.state)
            for report in self.reports()
            for one in report.containers
        }


def kinds(effects: Sequence[Struct]) -> list[str]:
    return [type(effect).__name__ for effect in effects]
