"""A large cluster for a long time: measures what a tick of each leader costs.

The same logic and the same parts as in ``simulated_cluster``, under ordinary load: hosts fail and come
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
from galaxy.testing.simulation.faults import NO_FAULTS
from galaxy.testing.simulation.host import HEARTBEAT_S, Host
from galaxy.testing.simulation.simulated_cluster import SimulatedCluster, Variant
from galaxy.units import MIB

LIGHT_FAULTS: Final = msgspec.structs.replace(
    NO_FAULTS, lose=0.001, double=0.001, late=0.001, launch_fails=0.001
)
"""Message losses of a healthy network, and rare failures to create a container."""

HEARTBEAT_BATCHES: Final = 20
"""Number of groups of hosts; the hosts of one group send their heartbeats at the same instant."""
CUT_S: Final = 90.0
"""Longest time that a host is cut off, in seconds."""
SETTLE_S: Final = CUT_S + 60.0
"""How long before the end the events stop, so that the cluster can converge, in seconds."""


class EventRates(Struct, frozen=True, kw_only=True):
    """Mean seconds between two events of a kind, for 10,000 hosts and 100,000 containers."""

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


class TickCosts(Struct, frozen=True, kw_only=True):
    """CPU seconds of one role's ticks, from when all containers run."""

    role: str
    ticks: int
    median_s: float
    p99_s: float
    worst_s: float
    share: float
    """CPU seconds of ticks per second of cluster time."""
    loads_s: tuple[float, ...]
    """CPU seconds that each new leader took to load the stored state."""


class ScaleReport(Struct, frozen=True, kw_only=True):
    """Events of a run and what the leaders' ticks cost."""

    costs: tuple[TickCosts, ...]
    messages_per_s: float
    """Messages per second of cluster time, over all queues."""
    memory_mib: float
    """Peak memory of the whole simulator, hosts and containers included, in MiB."""
    events: dict[str, int]
    differences: tuple[str, ...]
    """Differences between desired and observed state at the end; empty when converged."""


class TimedLeadership(Leadership):
    """A leadership that measures the CPU time of its start and of every tick."""

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


class LargeCluster(SimulatedCluster):
    """A cluster with ``jobs`` services of equal size over all hosts, and small jobs that come and go."""

    def __init__(self, seed: int, *, hosts: int, containers: int, jobs: int) -> None:
        super().__init__(
            seed, LIGHT_FAULTS, hosts=hosts, variant=Variant(leadership=TimedLeadership), quiet=True
        )
        self.events: dict[str, int] = {}
        self._jobs = jobs
        self._replica = containers // jobs
        self._small_jobs = 0
        for first in range(HEARTBEAT_BATCHES):
            self.world.after(
                first * HEARTBEAT_S / HEARTBEAT_BATCHES,
                partial(self._send_heartbeat, self.hosts[first::HEARTBEAT_BATCHES]),
            )

    def start_jobs(self, within_s: float = 600.0) -> float:
        """Submit all jobs; return the seconds of cluster time until every container runs."""
        gc.disable()  # Millions of objects live on; collecting them costs time and frees nothing.
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

    def run_for(self, seconds: float, rates: EventRates | None = None) -> ScaleReport:
        """Run for ``seconds`` with random events, checking once a minute; return what it cost."""
        TimedLeadership.costs.clear()
        TimedLeadership.loads.clear()
        began_s, delivered = self.world.elapsed_s, self.bus.delivered
        self._schedule_events(rates or EventRates(), until_s=began_s + seconds - SETTLE_S)
        while self.world.elapsed_s - began_s < seconds:
            self.world.run(min(self.world.elapsed_s + 60.0, began_s + seconds), _nothing)
            self.check()
            gc.collect(1)
        return ScaleReport(
            costs=tuple(_costs(role, seconds) for role in (RESMAN, APPMASTER)),
            messages_per_s=(self.bus.delivered - delivered) / seconds,
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            events=dict(self.events),
            differences=tuple(self.differences()),
        )

    # ---- random events

    def _schedule_events(self, rates: EventRates, until_s: float) -> None:
        """Schedule every kind of event at its mean interval; events of hosts are rarer in a small cluster."""
        size = len(self.hosts) / 10_000
        for name, mean_s, act, grows in (
            ("hosts lost", rates.host_lost, lambda: self._random_host().power_off(rates.away_s), True),
            (
                "hosts cut off",
                rates.host_cut,
                lambda: self._random_host().cut_off(self.world.between(1.0, CUT_S)),
                True,
            ),
            ("agents restarted", rates.agent_restarts, lambda: self._random_host().crash(), True),
            ("containers died", rates.worker_dies, lambda: self._with_random_worker(lambda w: w.die()), True),
            (
                "programs died",
                rates.program_dies,
                lambda: self._with_random_worker(lambda w: w.program_dies()),
                True,
            ),
            ("leaders lost", rates.leader_lost, self._crash_leader, False),
            ("submitted", rates.submitted, self._submit, False),
            ("updated", rates.updated, self._update, False),
            ("removed", rates.removed, self._remove, False),
        ):
            self._repeat(name, mean_s / size if grows else mean_s, act, until_s)

    def _repeat(self, name: str, mean_s: float, act: Callable[[], object], until_s: float) -> None:
        def due() -> None:
            if self.world.elapsed_s < until_s:
                self.events[name] = self.events.get(name, 0) + (act() is not False)
                self.world.after(self._interval_s(mean_s), due)

        self.world.after(self._interval_s(mean_s), due)

    def _interval_s(self, mean_s: float) -> float:
        return self.world.random.expovariate(1 / mean_s)

    def _random_host(self) -> Host:
        while True:
            host = self.world.random.choice(self.hosts)
            if host.logic is not None and not host.cut:
                return host

    def _with_random_worker(self, act: Callable[[Any], None]) -> None:
        while not (living := list(self._random_host().living.values())):
            pass
        act(self.world.random.choice(living))

    def _crash_leader(self) -> bool:
        leading = [leader for leader in self.leaders if leader.leads]
        if leading:
            self.world.random.choice(leading).crash()
        return bool(leading)

    def _submit(self) -> bool:
        if self.user.busy:
            return False
        self._small_jobs += 1
        self.user.submit(_spec(f"small{self._small_jobs}", self.world.random.randrange(1, 20)))
        return True

    def _update(self) -> bool:
        live = sorted(self.user.expected)
        if self.user.busy or not live:
            return False
        self.user.update(self.user.expected[self.world.random.choice(live)])
        return True

    def _remove(self) -> bool:
        small = sorted(name for name in self.user.expected if name.startswith("small"))
        if self.user.busy or not small:
            return False
        self.user.remove(self.user.expected[self.world.random.choice(small)])
        return True

    def _send_heartbeat(self, group: list[Host]) -> None:
        for host in group:
            host.send_heartbeat()
        self.world.after(HEARTBEAT_S, partial(self._send_heartbeat, group))

    def _running(self) -> int:
        return sum(len(host.living) for host in self.hosts)


def _nothing() -> None:
    pass


def _costs(role: str, seconds: float) -> TickCosts:
    times = sorted(cost for leading, cost in TimedLeadership.costs if leading == role)
    return TickCosts(
        role=role, ticks=len(times), median_s=times[len(times) // 2], p99_s=times[len(times) * 99 // 100],
        worst_s=times[-1], share=sum(times) / seconds,
        loads_s=tuple(cost for leading, cost in TimedLeadership.loads if leading == role),
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
