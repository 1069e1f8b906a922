"""A whole cluster: two processes for each leader, hosts, a user, and everybody who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import Effect
from galaxy.agent.logic.records import HostedContainer
from galaxy.appmaster.logic import AppMaster
from galaxy.driver.leadership import Leadership
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
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.checkers.accepted import accepted
from galaxy.testing.simulation.checkers.incarnations import IncarnationChecker, Obedience
from galaxy.testing.simulation.checkers.liveness import differences
from galaxy.testing.simulation.checkers.quota import Quotas
from galaxy.testing.simulation.checkers.safety import Booking, Capacity, Epochs, MassLoss, OnceOnly, OneLife
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.faults import Faults
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.leader import LeaderProcess
from galaxy.testing.simulation.simulated_user import SimulatedUser
from galaxy.testing.simulation.world import World
from galaxy.units import GIB

FAULTS_S: Final = 120.0
"""How long things go wrong."""
SETTLE_S: Final = 180.0
"""How long it may take, after that, until all is as wanted."""
MANY: Final = 3
"""So many hosts away at once are a mass loss, and leave one of four."""
SIZES: Final[tuple[dict[str, int], ...]] = (
    {"memory_bytes": GIB},
    {"disk_bytes": GIB},
    {"cpu_milli": 1500},
    {"cpu_milli": 8000, "memory_bytes": 6 * GIB},
)
"""What machines have little or much of, in turn, so that each of it runs short somewhere."""
LIMITED: Final = 1
"""In seeds of this rest by 3 the user has a quota, now higher and now lower."""
NOTICE_S: Final = 5.0
"""How long a host that is back may take until it has heard what is wanted of it now."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the cluster is built of; ``galaxy.testing.simulation.broken`` has some that must be caught."""

    resman: Callable[[], Logic] = ResMan
    appmaster: Callable[[], Logic] = AppMaster
    agent: Callable[[AgentInfo], AgentLogic] = AgentLogic
    nexus: Callable[[Callable[[], float]], MemoryNexus] = MemoryNexus
    leadership: type[Leadership] = Leadership
    trusting: bool = False


class SeedOutcome(Struct, frozen=True, kw_only=True):
    """How one seed ended; ``failure`` is empty when every promise was kept."""

    seed: int
    failure: str
    fingerprint: str
    steps: int
    settled_s: float
    """Seconds from the end of faults until all was as wanted."""
    messages: int = 0
    """How many were sent; of these, ``faults`` has those that were lost, doubled and late."""
    faults: dict[str, int] = {}
    """How often each fault came to be, by its name in ``Faults``."""
    starts: int = 0


class SimulatedCluster:
    """One world with one cluster in it."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        hosts: int = 4,
        variant: Variant | None = None,
        quiet: bool = False,
    ) -> None:
        """``quiet``: nothing happens by chance but to messages, and that for as long as the world is run."""
        variant = variant or Variant()
        self.seed = seed
        self.world = World(seed, faults, float("inf") if quiet else FAULTS_S)
        self.bus = Bus(self.world)
        self.nexus = variant.nexus(lambda: self.world.now_s)
        self._capacity, self._one, self._booking = Capacity(), OneLife(), Booking()
        self._once, self._epochs = OnceOnly(self._hidden), Epochs()
        self._lives, self._obedience, self._mass = IncarnationChecker(), Obedience(), MassLoss()
        self._quotas = Quotas()
        self.leaders = [
            LeaderProcess(
                self.world,
                self.bus,
                self.nexus,
                role=role,
                name=f"{role}-{letter}",
                build=build,
                kind=variant.leadership,
                trusting=variant.trusting,
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
                witness=self._witness,
                build=variant.agent,
                own_pulse=not quiet,
                audit=self,
                sizes=None if quiet else SIZES[(n - 1) % len(SIZES)],
            )
            for n in range(1, hosts + 1)
        ]
        self._by_name = {host.name: host for host in self.hosts}
        self.user = SimulatedUser(self.world, self.bus, self.nexus, limited=not quiet and seed % 3 == LIMITED)
        if not quiet:
            self._every_second()

    def run(self) -> SeedOutcome:
        """Let faults happen, stop them, and wait until all is as wanted."""
        failure, settled_s = "", 0.0
        try:
            self.world.run(FAULTS_S, self._check)
            settled_s = self._settle()
        except Violation as violation:
            failure = f"never: {violation}"
        else:
            if settled_s >= SETTLE_S:
                failure = "eventually: " + "; ".join(self.differences())
        return SeedOutcome(
            seed=self.seed, failure=failure, fingerprint=self.world.fingerprint, steps=self.world.steps,
            settled_s=settled_s, messages=self.bus.sent, faults=dict(self.world.struck),
            starts=self._once.starts,
        )  # fmt: skip

    def differences(self) -> list[str]:
        leading = [leader for leader in self.leaders if leader.role == APPMASTER and leader.leads]
        return differences(self.user.wanted, self.hosts, leading[0] if leading else None)

    def _settle(self) -> float:
        """Return after how many calm seconds nothing differed, for five seconds in a row."""
        calm = good = 0
        while calm < SETTLE_S and good < 5:
            calm += 1
            self.world.run(FAULTS_S + calm, self._check)
            good = 0 if self.user.busy or self.differences() else good + 1
        return float(calm)

    def _every_second(self) -> None:
        if self.world.elapsed_s < FAULTS_S:
            if self.world.chance(0.15):
                self.user.act()
            for leader in self.leaders:
                leader.chances()
            for host in self.hosts:
                host.chances()
            if self.world.chance(self.world.faults.mass_cut):
                self._cut_many()
        else:
            self.user.lift()
        self._committed()
        self.world.after(1.0, self._every_second)

    def _cut_many(self) -> None:
        """Cut off three hosts at once: that is the network, and none of them may be taken for dead."""
        well = [host for host in self.hosts if not host.cut and host.logic is not None]
        if len(well) >= MANY:
            self.world.struck["mass_cut"] += 1
            seconds = self.world.between(self.world.faults.cut_s / 3, self.world.faults.cut_s)
            for host in well[:MANY]:
                host.cut_off(seconds)
            agents = self.nexus.read_table(RESMAN, "agents", AgentRecord)
            self._mass.began([host.name for host in well[:MANY]], agents, self.world.now_s + seconds)

    def _witness(self, what: str, worker: SimulatedAppWorker, task: str, spec: TaskSpec) -> None:
        self.world.tell(
            f"{worker.container}_{worker.incarnation}/{task} on {worker.host}: {what} {spec.start}"
        )
        self._once.witness(what, worker, task, spec)
        if what == "start":
            self._lives.began(worker.host, worker.container, worker.incarnation)

    def made(self, host: str, container: str, incarnation: int) -> None:
        self._lives.made(host, container, incarnation)

    def written(self, hosted: HostedContainer) -> None:
        self._lives.written(hosted)

    def finished(self, host: str, pod: str) -> None:
        self._lives.finished(host, pod)

    def stepped(
        self, host: str, events: list[Struct], effects: tuple[Effect, ...], changed: Iterable[str]
    ) -> None:
        self._obedience.stepped(host, events, effects, changed)

    def _hidden(self, host: str) -> bool:
        """Whether ``host`` is cut off, or its end of that may not have been noticed yet."""
        return self.world.now_s < self._by_name[host].cut_until_s + NOTICE_S

    def check(self) -> None:
        """Check every promise now.

        Raises:
            Violation: one is broken.
        """
        self._check()
        self._committed()

    def _check(self) -> None:
        for host in self.hosts:
            self._capacity.check(host)
            self._one.check(host)
            self._epochs.check(host)
        for leader in self.leaders:
            if self.user.limited and leader.role == RESMAN and leader.leads:
                self._quotas.check(leader)
            if leader.role == APPMASTER and leader.leads:
                self._once.committed(leader)
                if (pods := leader.table("pods")) is not None:
                    self._lives.up(pods.values())

    def _committed(self) -> None:
        rows = self.nexus.read_table(RESMAN, "containers", Container)
        groups = self.nexus.read_table(RESMAN, "groups", Group)
        self._one.committed(rows)
        self._lives.current(rows)
        self._booking.committed(
            rows,
            {key: group.order.demand for key, group in groups.items()},
            {host.name: host.info for host in self.hosts},
        )
        self._mass.committed(self.nexus.read_table(RESMAN, "agents", AgentRecord), self.world.now_s)
        jobs = self.nexus.read_table(APPMASTER, "jobs", JobRecord)
        accepted(self.user, jobs)
        self._once.removed(self.user.removed.difference(jobs))
