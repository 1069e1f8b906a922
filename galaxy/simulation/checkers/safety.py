"""Safety: at no step, whatever goes wrong, is one of these promises broken."""

from __future__ import annotations

from collections.abc import Callable

from galaxy.model.container import Container, ContainerState
from galaxy.model.job import JobState, Wish
from galaxy.model.spec import JobType, TaskSpec
from galaxy.simulation.appworker import AppWorker
from galaxy.simulation.host import Host
from galaxy.simulation.leader import LeaderProcess


class Violation(AssertionError):
    """A promise that was broken; the message says which one, by whom, and when."""


class Capacity:
    """No machine holds more than it has, in CPU, memory and fixed ports, or gives two containers one user."""

    def check(self, host: Host) -> None:
        cpu = sum(worker.demand.cpu_milli for worker in host.living.values())
        memory = sum(worker.demand.memory_bytes for worker in host.living.values())
        if cpu > host.info.cpu_milli or memory > host.info.memory_bytes:
            raise Violation(f"{host.name} is over-allocated: {cpu} millicores, {memory} bytes")
        ports = [port for worker in host.living.values() for port in worker.ports.values()]
        if len(ports) != len(set(ports)):
            raise Violation(f"{host.name} gave a port twice: {sorted(ports)}")
        uids = [worker.uid for worker in host.living.values()]
        if len(uids) != len(set(uids)):
            raise Violation(f"{host.name} gave a uid twice: {sorted(uids)}")


class OneLife:
    """On one machine at most one life of a slot lives, and incarnations never go back."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def check(self, host: Host) -> None:
        slots = [worker.container for worker in host.living.values()]
        if len(slots) != len(set(slots)):
            raise Violation(f"{host.name} holds two lives of one slot: {sorted(host.living)}")

    def committed(self, rows: dict[str, Container]) -> None:
        """Check what ResMan has committed."""
        for key, row in rows.items():
            if row.incarnation < self._highest.get(key, 0):
                raise Violation(f"{key} went back to incarnation {row.incarnation}")
            self._highest[key] = row.incarnation


class Booking:
    """ResMan never commits more to an agent than it has."""

    def committed(self, rows: dict[str, Container], groups: dict[str, int], capacity: dict[str, int]) -> None:
        """``groups``: millicores of one container, by group; ``capacity``: millicores, by agent."""
        booked: dict[str, int] = {}
        for row in rows.values():
            if row.agent and row.state not in (ContainerState.PENDING, ContainerState.GONE):
                booked[row.agent] = booked.get(row.agent, 0) + groups.get(row.group, 0)
        for agent, cpu in booked.items():
            if cpu > capacity.get(agent, 0):
                raise Violation(f"ResMan booked {cpu} of {capacity.get(agent, 0)} millicores on {agent}")


class OnceOnly:
    """A batch pod that AppMaster knows to be finished never runs again; a stopped one neither.

    One thing nobody can prevent: a life that was already running when its host was cut off runs
    on there, and restarts as its policy says, until the host is heard again.
    """

    def __init__(self, hidden: Callable[[str], bool]) -> None:
        """``hidden`` tells whether a host is cut off, or was until a moment ago."""
        self.final: dict[str, str] = {}
        self.starts = 0
        self._hidden = hidden
        self._began: set[tuple[str, int]] = set()

    def committed(self, appmaster: LeaderProcess) -> None:
        """Take in what AppMaster has committed."""
        jobs, pods = appmaster.table("jobs"), appmaster.table("pods")
        if jobs is None or pods is None:
            return
        for pod in pods.values():
            job = jobs.get(pod.job)
            if job is None:
                continue
            if job.type is JobType.BATCH and pod.phase == "finished":
                self.final[pod.pod] = "finished"
            elif job.wish is Wish.STOP and job.state is JobState.STOPPED:
                self.final[pod.pod] = "stopped"
            elif self.final.get(pod.pod) == "stopped":
                del self.final[pod.pod]

    def witness(self, what: str, worker: AppWorker, task: str, spec: TaskSpec) -> None:
        """Hear that a program started, ended, or is done."""
        if what != "start":
            return
        self.starts += 1
        life = worker.container, worker.incarnation
        why = self.final.get(worker.container)
        if why is not None and not (life in self._began and self._hidden(worker.host)):
            raise Violation(f"{worker.container}/{task} is {why} and was started again: {spec.start}")
        self._began.add(life)


class Epochs:
    """An agent never forgets the highest epoch it obeyed."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str], int] = {}

    def check(self, host: Host) -> None:
        if host.logic is None:
            return
        for role, row in ((r.role, r) for r in host.logic.tables["epochs"].values()):
            if row.epoch < self._highest.get((host.name, role), 0):
                raise Violation(f"{host.name} went back to epoch {row.epoch} of {role}")
            self._highest[host.name, role] = row.epoch
