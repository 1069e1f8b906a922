"""A large cluster for a long time: what a tick of each leader costs when there is much of everything.

The same logic and the same parts as in ``cluster``, leading an ordinary life: hosts fail and come
back, users submit, update and remove, leaders fail over, a few messages are lost. Promises are
checked once a minute of cluster time instead of at every step.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from galaxy.driver.leadership import CommittedStep, Leadership
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    MemorySpec,
    PodSpec,
    PortSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.testing.simulation.faults import CALM
from galaxy.testing.simulation.host import BEAT_S, Host
from galaxy.testing.simulation.simulated_cluster import SimulatedCluster, Variant
from galaxy.units import MIB

DRIZZLE: Final = msgspec.structs.replace(CALM, lose=0.001, double=0.001, late=0.001, launch_fails=0.001)
"""What a healthy network loses, and how often a container cannot be made."""

COHORTS: Final = 20
"""Groups of hosts that beat at the same instant."""
CUT_S: Final = 90.0
"""How long a host is cut off at most."""
SETTLE_S: Final = CUT_S + 60.0
"""How long before the end ordinary life ceases, so that all that was wanted can come to be."""


class Life(Struct, frozen=True, kw_only=True):
    """Mean seconds between two events of a kind, in a cluster of 10,000 hosts and 100,000 containers."""

    host_lost: float = 60.0
    """A host loses power, and returns after ``away_s``."""
    away_s: float = 300.0
    host_cut: float = 120.0
    agent_restarts: float = 10.0
    worker_dies: float = 20.0
    program_dies: float = 2.0
    submitted: float = 15.0
    updated: float = 60.0
    removed: float = 20.0
    leader_lost: float = 600.0


class Costs(Struct, frozen=True, kw_only=True):
    """Seconds of CPU time; ``ticks`` of one role, without those before all was running."""

    role: str
    ticks: int
    median_s: float
    p99_s: float
    worst_s: float
    share: float
    """CPU seconds of ticks in one second of cluster time."""
    loads_s: tuple[float, ...]
    """What each new leader took to read what the last one left."""


class Account(Struct, frozen=True, kw_only=True):
    """What was done, and what it cost."""

    costs: tuple[Costs, ...]
    messages_per_s: float
    """Messages a second of cluster time, all queues together."""
    memory_mib: float
    """Peak of the whole simulator: every host, container and message of the cluster, and the leaders."""
    events: dict[str, int]
    differences: tuple[str, ...]
    """What at the end was not as users want it."""


class Timed(Leadership):
    """A leadership that notes what every tick, and the beginning, cost."""

    costs: list[tuple[str, float]] = []
    loads: list[tuple[str, float]] = []

    def begin(self, now_s: float) -> None:
        began_s = time.thread_time()
        super().begin(now_s)
        self.loads.append((self.grant.role, time.thread_time() - began_s))

    def advance(self, now_s: float, events: Sequence[Any]) -> list[CommittedStep]:
        began_s = time.thread_time()
        try:
            return super().advance(now_s, events)
        finally:
            self.costs.append((self.grant.role, time.thread_time() - began_s))


class Large(SimulatedCluster):
    """``jobs`` services of equal size over all hosts, and small ones that come and go."""

    def __init__(self, seed: int, *, hosts: int, containers: int, jobs: int) -> None:
        super().__init__(seed, DRIZZLE, hosts=hosts, variant=Variant(leadership=Timed), quiet=True)
        self.events: dict[str, int] = {}
        self._jobs = jobs
        self._replica = containers // jobs
        self._small = 0
        self._busy = False
        for first in range(COHORTS):
            self.world.after(first * BEAT_S / COHORTS, partial(self._beat, self.hosts[first::COHORTS]))

    def come_up(self, within_s: float = 600.0) -> float:
        """Submit everything; return the seconds of cluster time until all of it runs."""
        gc.disable()  # Of millions of live objects nothing is garbage: only what a round leaves is.
        self.world.run(15.0, _nothing)
        began_s = self.world.elapsed_s
        for number in range(self._jobs):
            self.user.submit(_spec(f"job{number}", self._replica))
            self.world.run(self.world.elapsed_s + 4.0, _nothing)
        while self._running() < self._jobs * self._replica:
            if self.world.elapsed_s - began_s > within_s + 4.0 * self._jobs:
                raise TimeoutError(
                    f"{self._running()} of {self._jobs * self._replica} run after {within_s:.0f} s"
                )
            self.world.run(self.world.elapsed_s + 1.0, _nothing)
        gc.collect()
        gc.freeze()
        return self.world.elapsed_s - began_s

    def stay(self, seconds: float, life: Life | None = None) -> Account:
        """Let ``seconds`` of ordinary life pass, checking promises once a minute; return what it cost."""
        Timed.costs.clear()
        Timed.loads.clear()
        began_s, delivered = self.world.elapsed_s, self.bus.delivered
        self._live(life or Life(), until_s=began_s + seconds - SETTLE_S)
        while self.world.elapsed_s - began_s < seconds:
            self.world.run(min(self.world.elapsed_s + 60.0, began_s + seconds), _nothing)
            self.check()
            gc.collect(1)
        return Account(
            costs=tuple(_costs(role, seconds) for role in (RESMAN, APPMASTER)),
            messages_per_s=(self.bus.delivered - delivered) / seconds,
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            events=dict(self.events),
            differences=tuple(self.differences()),
        )

    # ---- ordinary life

    def _live(self, life: Life, until_s: float) -> None:
        """Let everything in ``container_key`` happen by chance; the smaller the cluster, the rarer."""
        size = len(self.hosts) / 10_000
        for name, mean_s, act, grows in (
            ("hosts lost", life.host_lost, lambda: self._any_host().power_off(life.away_s), True),
            (
                "hosts cut off",
                life.host_cut,
                lambda: self._any_host().cut_off(self.world.between(1.0, CUT_S)),
                True,
            ),
            ("agents restarted", life.agent_restarts, lambda: self._any_host().crash(), True),
            ("containers died", life.worker_dies, lambda: self._any_worker(lambda w: w.die()), True),
            ("programs died", life.program_dies, lambda: self._any_worker(lambda w: w.program_dies()), True),
            ("leaders lost", life.leader_lost, self._lose_leader, False),
            ("submitted", life.submitted, self._submit, False),
            ("updated", life.updated, self._update, False),
            ("removed", life.removed, self._remove, False),
        ):
            self._now_and_then(name, mean_s / size if grows else mean_s, act, until_s)

    def _now_and_then(self, name: str, mean_s: float, act: Callable[[], object], until_s: float) -> None:
        def due() -> None:
            if self.world.elapsed_s < until_s:
                self.events[name] = self.events.get(name, 0) + (act() is not False)
                self.world.after(self._draw(mean_s), due)

        self.world.after(self._draw(mean_s), due)

    def _draw(self, mean_s: float) -> float:
        return self.world.random.expovariate(1 / mean_s)

    def _any_host(self) -> Host:
        while True:
            host = self.world.random.choice(self.hosts)
            if host.logic is not None and not host.cut:
                return host

    def _any_worker(self, act: Callable[[Any], None]) -> None:
        while not (living := list(self._any_host().living.values())):
            pass
        act(self.world.random.choice(living))

    def _lose_leader(self) -> bool:
        leading = [leader for leader in self.leaders if leader.leads]
        if leading:
            self.world.random.choice(leading).crash()
        return bool(leading)

    def _submit(self) -> bool:
        if self.user.busy:
            return False
        self._small += 1
        self.user.submit(_spec(f"small{self._small}", self.world.random.randrange(1, 20)))
        return True

    def _update(self) -> bool:
        live = sorted(self.user.wanted)
        if self.user.busy or not live:
            return False
        self.user.update(self.user.wanted[self.world.random.choice(live)])
        return True

    def _remove(self) -> bool:
        small = sorted(name for name in self.user.wanted if name.startswith("small"))
        if self.user.busy or not small:
            return False
        self.user.remove(self.user.wanted[self.world.random.choice(small)])
        return True

    def _beat(self, cohort: list[Host]) -> None:
        for host in cohort:
            host.beat()
        self.world.after(BEAT_S, partial(self._beat, cohort))

    def _running(self) -> int:
        return sum(len(host.living) for host in self.hosts)


def _nothing() -> None:
    pass


def _costs(role: str, seconds: float) -> Costs:
    times = sorted(cost for whose, cost in Timed.costs if whose == role)
    return Costs(
        role=role, ticks=len(times), median_s=times[len(times) // 2], p99_s=times[len(times) * 99 // 100],
        worst_s=times[-1], share=sum(times) / seconds,
        loads_s=tuple(cost for whose, cost in Timed.loads if whose == role),
    )  # fmt: skip


def _spec(name: str, replica: int) -> JobSpec:
    return JobSpec(
        name=name,
        deploy=DeploySpec(replica=replica, step=max(1, replica // 20), stop_timeout=5.0, drain=0.5),
        pod=PodSpec(
            workspace=VolumeSpec(path="/home/galaxy", size=64 * MIB),
            tasks=(
                TaskSpec(
                    name="main", cpu=CpuSpec(millicores=100), memory=MemorySpec(size=64 * MIB),
                    start="serve 1", ports=(PortSpec(name="http"),),
                ),
            ),
        ),
    )  # fmt: skip
