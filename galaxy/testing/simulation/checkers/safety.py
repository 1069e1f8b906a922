"""Safety: properties that hold at every step, whatever faults occur."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from galaxy.model.jobspec.spec import JobType, TaskSpec
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.messages.container import ContainerState, Demand
from galaxy.model.resources import FIELDS, NOTHING, Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import DesiredState, JobState
from galaxy.scheduler.requests import Load
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.leader import LeaderProcess

_NOWHERE: Final = (ContainerState.PENDING, ContainerState.GONE)


class Capacity:
    """No host runs more than it has of CPU, memory, disk and ports."""

    def check(self, host: Host) -> None:
        demands = [worker.demand for worker in host.living.values()]
        _within(f"{host.name} holds", host.info, [demand.resources for demand in demands])
        ports = [port for worker in host.living.values() for port in worker.ports.values()]
        if len(ports) != len(set(ports)):
            raise Violation(f"{host.name} gave a port twice: {sorted(ports)}")


def _within(who: str, info: AgentInfo, amounts: Iterable[Resources]) -> None:
    total = sum(amounts, start=NOTHING)
    for field in FIELDS:
        amount, limit = getattr(total, field), getattr(info, field)
        if amount > limit:
            raise Violation(f"{who} {amount} of {limit} {field} of {info.agent}")


class SingleIncarnation:
    """A host runs at most one incarnation of a container, and incarnations never decrease."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def check(self, host: Host) -> None:
        slots = [worker.container for worker in host.living.values()]
        if len(slots) != len(set(slots)):
            raise Violation(f"{host.name} runs two incarnations of one container: {sorted(host.living)}")

    def committed(self, rows: dict[str, Container]) -> None:
        """Check the rows that ResMan has committed."""
        for key, row in rows.items():
            if row.incarnation < self._highest.get(key, 0):
                raise Violation(f"{key} went back to incarnation {row.incarnation}")
            self._highest[key] = row.incarnation


class Overcommit:
    """ResMan never assigns an agent more than it has, nor a fixed port twice."""

    def committed(
        self, rows: dict[str, Container], groups: dict[str, Group], infos: dict[str, AgentInfo]
    ) -> None:
        """Check committed rows; ``infos`` are by agent. A row that is resized counts with the larger size."""
        assigned: dict[str, list[Load]] = {}
        for key, row in rows.items():
            # An earlier incarnation may be gone already; ``Capacity`` checks what actually runs.
            if key == row.container and row.agent and row.state not in _NOWHERE and row.group in groups:
                load = _load(groups[row.group].demand_of(row.size), row.resources)
                assigned.setdefault(row.agent, []).append(load)
        for agent, loads in assigned.items():
            _within("ResMan assigned", infos[agent], [load.resources for load in loads])
            ports = [port for load in loads for port in load.ports]
            if len(ports) != len(set(ports)):
                raise Violation(f"ResMan assigned a port of {agent} twice: {sorted(ports)}")


def _load(demand: Demand, also: Resources) -> Load:
    """Return what ResMan counts for a container: its resources and fixed ports.

    Agents keep the ports that they choose distinct. An agent may reuse such a port before ResMan has the
    report that the container which had it is gone.
    """
    ports = {port.port for port in demand.ports if port.port}
    return Load(demand.resources.largest(also), tuple(sorted(ports)))


class NoRerun:
    """A pod that AppMaster has committed as finished, stopped or removed never runs again.

    One exception cannot be prevented: an incarnation that already ran when its host was cut off keeps
    running there, and restarts by its policy, until the host is connected again.
    """

    def __init__(self, is_partitioned: Callable[[str], bool]) -> None:
        """``is_partitioned`` returns whether a host is cut off, or was until a moment ago."""
        self.final: dict[str, str] = {}
        self.starts = 0
        self._is_partitioned = is_partitioned
        self._began: set[tuple[str, int]] = set()
        self._removed: set[str] = set()

    def removed(self, jobs: set[str]) -> None:
        """Set which jobs are removed for good."""
        self._removed = jobs

    def committed(self, appmaster: LeaderProcess) -> None:
        """Record which pods AppMaster has committed as finished or stopped."""
        jobs, pods = appmaster.table("jobs"), appmaster.table("pods")
        if jobs is None or pods is None:
            return
        for pod in pods.values():
            job = jobs.get(pod.job)
            if job is None:
                continue
            if job.type is JobType.BATCH and pod.phase == "finished":
                self.final[pod.pod] = "finished"
            elif job.desired is DesiredState.STOP and job.state is JobState.STOPPED:
                self.final[pod.pod] = "stopped"
            elif self.final.get(pod.pod) == "stopped":
                del self.final[pod.pod]

    def on_program(self, what: str, worker: SimulatedAppWorker, task: str, spec: TaskSpec) -> None:
        """Check a program start; ends are ignored."""
        if what != "start":
            return
        self.starts += 1
        key = worker.container, worker.incarnation
        gone = worker.container.rpartition(".")[0] in self._removed
        why = "removed" if gone else self.final.get(worker.container)
        if why is not None and not (key in self._began and self._is_partitioned(worker.host)):
            raise Violation(f"{worker.container}/{task} is {why} and was started again: {spec.start}")
        self._began.add(key)


class EpochsNeverFall:
    """The highest epoch that an agent has accepted never decreases."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str], int] = {}

    def check(self, host: Host) -> None:
        if host.logic is None:
            return
        for role, row in ((r.role, r) for r in host.logic.tables["epochs"].values()):
            if row.epoch < self._highest.get((host.name, role), 0):
                raise Violation(f"{host.name} went back to epoch {row.epoch} of {role}")
            self._highest[host.name, role] = row.epoch


class MassLoss:
    """Hosts that are cut off together are not declared dead, because the network is the likely cause."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._until_s = 0.0

    def began(self, names: list[str], agents: dict[str, AgentRecord], until_s: float) -> None:
        """Record that these hosts are cut off. It is a mass loss if all of them were alive for ResMan."""
        known = [agents[name].state for name in names if name in agents]
        alive = known == [AgentState.ALIVE] * len(names)
        self._names, self._until_s = names if alive else [], until_s

    def committed(self, agents: dict[str, AgentRecord], now_s: float) -> None:
        """Check the agents that ResMan has committed."""
        if now_s >= self._until_s:
            return
        for name in self._names:
            record = agents.get(name)
            if record is not None and record.state is AgentState.DEAD:
                raise Violation(f"{name} was cut off with {len(self._names) - 1} others and is declared dead")
