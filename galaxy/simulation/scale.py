"""A large cluster for a long time: what a tick of each leader costs when there is much of everything.

The same logic and the same parts as in ``cluster``; promises are checked once a minute of
cluster time instead of at every step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from galaxy.driver.leadership import Leadership, Outcome
from galaxy.model.base import Noun
from galaxy.model.names import APPMASTER, RESMAN
from galaxy.model.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    MemorySpec,
    PodSpec,
    PortSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.simulation.cluster import Cluster, Variant
from galaxy.simulation.faults import Faults
from galaxy.simulation.user import Wanted
from galaxy.units import MIB

DRIZZLE: Final = Faults(
    lose=0.001, double=0.001, late=0.001, agent_crash=1e-6, agent_crash_in_step=0, host_wipe=1e-7,
    host_cut=1e-6, leader_crash=0, leader_crash_in_step=0, leader_pause=0, launch_fails=0.001,
    worker_dies=1e-8, program_dies=1e-7,
)  # fmt: skip
"""What a large and healthy cluster sees of faults."""


class Costs(Noun, frozen=True, kw_only=True):
    """Seconds of real time; ``ticks`` of one role, without those before all was running."""

    role: str
    ticks: int
    median_s: float
    p99_s: float
    worst_s: float
    share: float
    """Real seconds of ticks in one second of cluster time."""


class Timed(Leadership):
    """A leadership that notes what every tick cost."""

    costs: list[tuple[str, float]] = []

    def advance(self, now_s: float, events: Sequence[Any]) -> list[Outcome]:
        began_s = time.perf_counter()
        try:
            return super().advance(now_s, events)
        finally:
            self.costs.append((self.grant.role, time.perf_counter() - began_s))


class Large(Cluster):
    """``jobs`` services of equal size over all hosts."""

    def __init__(self, seed: int, *, hosts: int, containers: int, jobs: int) -> None:
        super().__init__(seed, DRIZZLE, hosts=hosts, variant=Variant(leadership=Timed), quiet=True)
        self._jobs = jobs
        self._replica = containers // jobs

    def come_up(self, within_s: float = 600.0) -> float:
        """Submit everything; return the seconds of cluster time until all of it runs."""
        self.world.run(15.0, _nothing)
        began_s = self.world.elapsed_s
        for number in range(self._jobs):
            self.user.submit(_spec(f"job{number}", self._replica))
            self.world.run(self.world.elapsed_s + 4.0, _nothing)
        while self._running() < self._jobs * self._replica:
            if self.world.elapsed_s - began_s > within_s:
                raise TimeoutError(
                    f"{self._running()} of {self._jobs * self._replica} run after {within_s:.0f} s"
                )
            self.world.run(self.world.elapsed_s + 1.0, _nothing)
        return self.world.elapsed_s - began_s

    def stay(self, seconds: float) -> tuple[Costs, ...]:
        """Let ``seconds`` of cluster time pass, checking promises once a minute; return what ticks cost."""
        Timed.costs.clear()
        began_s = self.world.elapsed_s
        while self.world.elapsed_s - began_s < seconds:
            self.world.run(self.world.elapsed_s + 60.0, _nothing)
            self.check()
        return tuple(_costs(role, seconds) for role in (RESMAN, APPMASTER))

    def _running(self) -> int:
        return sum(len(host.living) for host in self.hosts)

    def wanted(self) -> dict[str, Wanted]:
        return self.user.wanted


def _nothing() -> None:
    pass


def _costs(role: str, seconds: float) -> Costs:
    times = sorted(cost for whose, cost in Timed.costs if whose == role)
    return Costs(
        role=role, ticks=len(times), median_s=times[len(times) // 2], p99_s=times[len(times) * 99 // 100],
        worst_s=times[-1], share=sum(times) / seconds,
    )  # fmt: skip


def _spec(name: str, replica: int) -> JobSpec:
    return JobSpec(
        name=name,
        deploy=DeploySpec(replica=replica),
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
