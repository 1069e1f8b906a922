"""A whole cluster: two processes for each leader, hosts, a user, and everybody who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from galaxy.agent.logic import AgentLogic
from galaxy.appmaster.logic import AppMaster
from galaxy.driver.leadership import Leadership
from galaxy.model.agent import AgentInfo
from galaxy.model.base import Noun
from galaxy.model.container import Container, Group
from galaxy.model.names import APPMASTER, RESMAN
from galaxy.model.spec import TaskSpec
from galaxy.model.step import Logic
from galaxy.nexus.memory import MemoryNexus
from galaxy.resman.logic import ResMan
from galaxy.simulation.appworker import AppWorker
from galaxy.simulation.bus import Bus
from galaxy.simulation.checkers.liveness import differences
from galaxy.simulation.checkers.safety import Booking, Capacity, Epochs, OnceOnly, OneLife, Violation
from galaxy.simulation.faults import Faults
from galaxy.simulation.host import Host
from galaxy.simulation.leader import LeaderProcess
from galaxy.simulation.user import User
from galaxy.simulation.world import World

FAULTS_S: Final = 120.0
"""How long things go wrong."""
SETTLE_S: Final = 180.0
"""How long it may take, after that, until all is as wanted."""
NOTICE_S: Final = 5.0
"""How long a host that is back may take until it has heard what is wanted of it now."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the cluster is built of; ``galaxy.simulation.broken`` has some that must be caught."""

    resman: Callable[[], Logic] = ResMan
    appmaster: Callable[[], Logic] = AppMaster
    agent: Callable[[AgentInfo], AgentLogic] = AgentLogic
    nexus: Callable[[Callable[[], float]], MemoryNexus] = MemoryNexus
    leadership: type[Leadership] = Leadership
    trusting: bool = False


class Outcome(Noun, frozen=True, kw_only=True):
    """How one seed ended; ``failure`` is empty when every promise was kept."""

    seed: int
    failure: str
    fingerprint: str
    steps: int
    settled_s: float
    """Seconds from the end of faults until all was as wanted."""
    lost: int = 0
    doubled: int = 0
    starts: int = 0


class Cluster:
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
            )
            for n in range(1, hosts + 1)
        ]
        self._by_name = {host.name: host for host in self.hosts}
        self.user = User(self.world, self.bus, self.nexus)
        if not quiet:
            self._every_second()

    def run(self) -> Outcome:
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
        return Outcome(
            seed=self.seed, failure=failure, fingerprint=self.world.fingerprint, steps=self.world.steps,
            settled_s=settled_s, lost=self.bus.lost, doubled=self.bus.doubled, starts=self._once.starts,
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
        self._committed()
        self.world.after(1.0, self._every_second)

    def _witness(self, what: str, worker: AppWorker, task: str, spec: TaskSpec) -> None:
        self.world.tell(
            f"{worker.container}_{worker.incarnation}/{task} on {worker.host}: {what} {spec.start}"
        )
        self._once.witness(what, worker, task, spec)

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
            if leader.role == APPMASTER and leader.leads:
                self._once.committed(leader)

    def _committed(self) -> None:
        rows = self.nexus.read_table(RESMAN, "containers", Container)
        groups = self.nexus.read_table(RESMAN, "groups", Group)
        self._one.committed(rows)
        self._booking.committed(
            rows,
            {key: group.order.demand.cpu_milli for key, group in groups.items()},
            {host.name: host.info.cpu_milli for host in self.hosts},
        )
