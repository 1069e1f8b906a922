"""A simulated cluster: two processes for each leader role, hosts, a user, and all checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import Effect
from galaxy.agent.logic.records import HostedContainer
from galaxy.appmaster.logic import AppMaster
from galaxy.driver.leadership import Leadership
from galaxy.driver.warm_tables import WarmTables
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.agent import AgentInfo
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.step import Logic
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import JobRecord
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.resman.logic import ResMan
from galaxy.testing.simulation.agent_disk import HostObserver
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.checkers.accepted import accepted
from galaxy.testing.simulation.checkers.accounting import AccountingChecker
from galaxy.testing.simulation.checkers.drains import KeepsMinimum, undrained
from galaxy.testing.simulation.checkers.incarnations import IncarnationChecker, StaleEpochs
from galaxy.testing.simulation.checkers.liveness import differences
from galaxy.testing.simulation.checkers.preemption import PreemptionChecker
from galaxy.testing.simulation.checkers.quota import QuotaChecker
from galaxy.testing.simulation.checkers.safety import (
    Capacity,
    EpochsNeverFall,
    MassLoss,
    NoRerun,
    Overcommit,
    SingleIncarnation,
)
from galaxy.testing.simulation.checkers.scheduler_view import SchedulerView
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.faults import Faults
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.leader import LeaderProcess
from galaxy.testing.simulation.simulated_operator import SimulatedOperator
from galaxy.testing.simulation.simulated_user import SimulatedUser
from galaxy.testing.simulation.world import World
from galaxy.units import GIB

FAULTS_S: Final = 120.0
"""How long faults occur, in seconds."""
SETTLE_S: Final = 180.0
"""How long the cluster may then take to converge, in seconds."""
MASS_CUT_HOSTS: Final = 3
"""Hosts that a mass cut disconnects at once; one of the four remains."""
SIZES: Final[tuple[dict[str, int], ...]] = (
    {"memory_bytes": GIB},
    {"disk_bytes": GIB},
    {"cpu_milli": 1500},
    {"cpu_milli": 8000, "memory_bytes": 6 * GIB},
)
"""Sizes of the hosts in turn, so that every resource runs short somewhere."""
QUOTA_SEED_REST: Final = 1
"""The user has a changing quota in seeds that leave this remainder when divided by 3."""
DRAIN_SEED_REST: Final = 6
"""An operator drains hosts in seeds that leave this remainder when divided by 8."""
RESIZE_SEED_REST: Final = 2
"""The user resizes jobs in seeds that leave this remainder when divided by 4."""
DRAINED_S: Final = 240.0
"""How long the drain at the end may take, in seconds."""
NOTICE_S: Final = 5.0
"""How long a reconnected host may take until it has received current orders, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The parts that a cluster is built from; the checkers must find a violation in those of ``broken``."""

    resman: Callable[[], Logic] = ResMan
    appmaster: Callable[[], Logic] = AppMaster
    agent: Callable[[AgentInfo], AgentLogic] = AgentLogic
    nexus: Callable[[Callable[[], float]], MemoryNexus] = MemoryNexus
    leadership: type[Leadership] = Leadership
    warm: type[WarmTables] = WarmTables
    ignore_lease: bool = False


class SeedOutcome(Struct, frozen=True, kw_only=True):
    """The result of one seed; ``failure`` is empty when every check passed."""

    seed: int
    failure: str
    fingerprint: str
    steps: int
    settled_s: float
    """Seconds from the end of faults until the cluster had converged."""
    messages: int = 0
    """Messages sent; ``faults`` counts those that were lost, duplicated and late."""
    faults: dict[str, int] = {}
    """How often each fault occurred, by its name in ``Faults``."""
    starts: int = 0


class SimulatedCluster(HostObserver):
    """One world with one cluster."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        hosts: int = 4,
        variant: Variant | None = None,
        quiet: bool = False,
    ) -> None:
        """``quiet``: only messages suffer faults, until the end; no other event is random."""
        variant = variant or Variant()
        self.seed = seed
        self.world = World(seed, faults, float("inf") if quiet else FAULTS_S)
        self.nexus = variant.nexus(lambda: self.world.now_s)
        self.bus = Bus(self.world, self.nexus)
        self._capacity, self._single, self._overcommit = Capacity(), SingleIncarnation(), Overcommit()
        self._reruns, self._epochs = NoRerun(self._is_partitioned), EpochsNeverFall()
        self._incarnations, self._stale_epochs, self._mass_loss = (
            IncarnationChecker(),
            StaleEpochs(),
            MassLoss(),
        )
        self._quotas, self._views, self._minimum = (
            {RESMAN: QuotaChecker(), APPMASTER: QuotaChecker()},
            SchedulerView(),
            KeepsMinimum(),
        )
        self._preemptions = PreemptionChecker()
        self.accounting = AccountingChecker(lambda: self.world.now_s)
        self.nexus.on_commit = self.accounting.committed if not quiet else self.nexus.on_commit
        self._checked: dict[str, tuple[object, ...]] = {}
        """What was checked last: of a host its containers, until its agent steps; of a leader its tick."""
        self.leaders = [
            LeaderProcess(
                self.world,
                self.bus,
                self.nexus,
                role=role,
                name=f"{role}-{letter}",
                build=build,
                kind=variant.leadership,
                warm=variant.warm,
                ignore_lease=variant.ignore_lease,
            )
            for role, build in ((RESMAN, variant.resman), (APPMASTER, variant.appmaster))
            for letter in "ab"
        ]
        self.hosts = [
            Host(
                self.world,
                self.bus,
                self.nexus,
                name=f"h{n}",
                on_program=self._on_program,
                build=variant.agent,
                own_heartbeats=not quiet,
                observer=self,
                sizes=None if quiet else SIZES[(n - 1) % len(SIZES)],
            )
            for n in range(1, hosts + 1)
        ]
        self._by_name = {host.name: host for host in self.hosts}
        self.user = SimulatedUser(
            self.world,
            self.bus,
            self.nexus,
            has_quota=not quiet and seed % 3 == QUOTA_SEED_REST,
            resizes=not quiet and seed % 4 == RESIZE_SEED_REST,
        )
        self._is_last_drain = False
        self.operator: SimulatedOperator | None = None
        """Drains hosts, if there is one in this seed."""
        if not quiet and seed % 8 == DRAIN_SEED_REST:
            self.operator = SimulatedOperator(
                self.world, self.bus, self.nexus, [host.name for host in self.hosts]
            )
        if not quiet:
            self._every_second()

    def run(self) -> SeedOutcome:
        """Run with faults, then without, until the cluster has converged or ``SETTLE_S`` is over."""
        failure, settled_s = "", 0.0
        try:
            self.world.run(FAULTS_S, self._check)
            settled_s = self._settle()
            drained = self._drain_at_the_end() if settled_s < SETTLE_S else []
        except Violation as violation:
            failure = f"never: {violation}"
        else:
            if settled_s >= SETTLE_S:
                failure = "eventually: " + "; ".join(self.differences())
            elif drained:
                failure = "eventually: " + "; ".join(drained)
        return SeedOutcome(
            seed=self.seed, failure=failure, fingerprint=self.world.fingerprint, steps=self.world.steps,
            settled_s=settled_s, messages=self.bus.sent, faults=dict(self.world.fault_counts),
            starts=self._reruns.starts,
        )  # fmt: skip

    def differences(self) -> list[str]:
        leading = [leader for leader in self.leaders if leader.role == APPMASTER and leader.leads]
        return differences(self.user.expected, self.hosts, leading[0] if leading else None)

    def _settle(self) -> float:
        """Return the seconds until nothing has differed for five seconds in a row."""
        calm = good = 0
        while calm < SETTLE_S and good < 5:
            calm += 1
            self.world.run(FAULTS_S + calm, self._check)
            busy = self.user.busy or (self.operator is not None and bool(self.operator.draining))
            good = 0 if busy or self.differences() else good + 1
        return float(calm)

    def _drain_at_the_end(self) -> list[str]:
        """Drain a host of the settled cluster; return what is left on it without saying why."""
        if self.operator is None:
            return []
        self._is_last_drain = True
        self.operator.drain(self.hosts[self.seed // 8 % len(self.hosts)].name)
        end_s = self.world.elapsed_s + DRAINED_S
        left = ["the drain was not answered"]
        while left and self.world.elapsed_s < end_s:
            self.world.run(self.world.elapsed_s + 1.0, self._check)
            if self.operator.draining:
                left = undrained(
                    self.nexus.read_table(RESMAN, "agents", AgentRecord),
                    self.nexus.read_table(RESMAN, "containers", Container),
                    {
                        key
                        for key, group in self.nexus.read_table(RESMAN, "groups", Group).items()
                        if group.order.batch
                    },
                )
        return left

    def _every_second(self) -> None:
        if self.world.elapsed_s < FAULTS_S:
            if self.world.chance(0.15):
                self.user.act()
            for leader in self.leaders:
                leader.inject_faults()
            for host in self.hosts:
                host.inject_faults()
            if self.world.chance(self.world.faults.mass_cut):
                self._cut_many()
            if self.operator is not None:
                self.operator.act()
        else:
            self.user.remove_quota()
            if self.operator is not None and not self._is_last_drain:
                self.operator.end()
        self._committed()
        self.accounting.check()
        self.world.after(1.0, self._every_second)

    def _cut_many(self) -> None:
        """Cut off three hosts at once. That is a network fault, so none of them may be declared dead."""
        reachable = [host for host in self.hosts if not host.cut and host.logic is not None]
        if len(reachable) >= MASS_CUT_HOSTS:
            self.world.fault_counts["mass_cut"] += 1
            seconds = self.world.between(self.world.faults.cut_s / 3, self.world.faults.cut_s)
            for host in reachable[:MASS_CUT_HOSTS]:
                host.cut_off(seconds)
            agents = self.nexus.read_table(RESMAN, "agents", AgentRecord)
            self._mass_loss.began(
                [host.name for host in reachable[:MASS_CUT_HOSTS]], agents, self.world.now_s + seconds
            )

    def _on_program(self, what: str, worker: SimulatedAppWorker, task: str, spec: TaskSpec) -> None:
        self.world.record(
            f"{worker.container}_{worker.incarnation}/{task} on {worker.host}: {what} {spec.start}"
        )
        self._reruns.on_program(what, worker, task, spec)
        if what == "start":
            self._incarnations.began(worker.host, worker.container, worker.incarnation)

    def container_created(self, host: str, container: str, incarnation: int) -> None:
        self._incarnations.created(host, container, incarnation)

    def container_stored(self, hosted: HostedContainer) -> None:
        self._incarnations.written(hosted)

    def finished_pod_stored(self, host: str, pod: str) -> None:
        self._incarnations.finished(host, pod)

    def stepped(
        self, host: str, events: list[Struct], effects: tuple[Effect, ...], changed: Iterable[str]
    ) -> None:
        self._stale_epochs.stepped(host, events, effects, changed)
        self._checked.pop(host, None)

    def _is_partitioned(self, host: str) -> bool:
        """Return whether ``host`` is cut off, or reconnected less than ``NOTICE_S`` ago."""
        return self.world.now_s < self._by_name[host].cut_until_s + NOTICE_S

    def check(self) -> None:
        """Run every checker now.

        Raises:
            Violation: a check failed.
        """
        self._checked.clear()
        self._check()
        self._committed()

    def _check(self) -> None:
        """Run the checkers of what may have changed since they ran last: most steps change little."""
        for host in self.hosts:
            workers = host.living.values()
            held = (host.info, *workers, *[worker.demand for worker in workers])
            if self._checked.get(host.name) != held:
                self._checked[host.name] = held
                self._capacity.check(host)
                self._single.check(host)
                self._epochs.check(host)
        for leader in self.leaders:
            if leader.logic is None:
                continue
            if leader.role == RESMAN:
                self._views.check(leader)
            tick = (leader.epoch, leader.ticks)
            if self._checked.get(leader.name) != tick and leader.leads:
                self._checked[leader.name] = tick
                self._check_leader(leader)

    def _check_leader(self, leader: LeaderProcess) -> None:
        """Check the tables of a leader, which change only when it begins to lead and in its ticks."""
        if leader.role == RESMAN:
            self._preemptions.check(leader)
            if self.user.has_quota:
                self._quotas[RESMAN].check_placed(leader)
        else:
            if self.user.has_quota:
                self._quotas[APPMASTER].check_wanted(leader)
            self._reruns.committed(leader)
            self._minimum.check(leader)
            self._incarnations.up(leader.table("pods").values())

    def _committed(self) -> None:
        rows = self.nexus.read_table(RESMAN, "containers", Container)
        groups = self.nexus.read_table(RESMAN, "groups", Group)
        self._single.committed(rows)
        self._incarnations.current(rows)
        self._overcommit.committed(
            rows,
            groups,
            {host.name: host.info for host in self.hosts},
        )
        self._mass_loss.committed(self.nexus.read_table(RESMAN, "agents", AgentRecord), self.world.now_s)
        jobs = self.nexus.read_table(APPMASTER, "jobs", JobRecord)
        accepted(self.user, jobs)
        self._reruns.removed(self.user.removed.difference(jobs))
