"""A run: wait, inject a fault, wait for recovery; repeat until the time is over or a promise is broken."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from galaxy.errors import GalaxyError
from galaxy.testing.chaos import faults
from galaxy.testing.chaos.convergence import ConvergenceChecker
from galaxy.testing.chaos.faults import Fault
from galaxy.testing.chaos.real_cluster import RealCluster
from galaxy.testing.chaos.report import ChaosReport
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload

START_S: Final = 60.0
RECOVERY_WAIT_S: Final = 60.0
"""How long a cluster may take to recover; beyond ``within_s`` only to measure by how much it is late."""
CALM_S: Final = (0.3, 2.0)
"""Shortest and longest time between recovery and the next fault; jobs keep changing meanwhile."""
TIMELINE_LINES_MAX: Final = 60


class Violation(Exception):
    """Promises were broken; each argument describes one."""


class Engine:
    """Injects ``selected`` faults into ``cluster``. The same seed gives the same order of faults.

    ``output`` takes lines for people. ``timeline`` keeps the last events, for the report of a failure.
    """

    def __init__(
        self,
        cluster: RealCluster,
        selected: Sequence[Fault],
        *,
        seed: int,
        within_s: float,
        output: Callable[[str], None],
    ) -> None:
        self.report = ChaosReport(seed, cluster.agents, cluster.leaders, within_s)
        self.timeline: deque[str] = deque(maxlen=TIMELINE_LINES_MAX)
        self._cluster = cluster
        self._selected = tuple(selected)
        self._rng = random.Random(seed)  # noqa: S311 - the order must be reproducible
        self._output = output
        self._start_s = time.monotonic()
        self._listener = WitnessListener()
        changes = random.Random(seed + 1)  # noqa: S311 - as above
        self._workload = Workload(cluster, self._listener, changes, self._note)
        self._checker = ConvergenceChecker(cluster, self._listener, self._workload)

    def run(self, lasts_s: float, *, rounds: int = 0) -> ChaosReport:
        """Run for ``lasts_s`` seconds, or until a promise is broken, and return the report.

        With ``rounds`` inject every fault that many times instead, however long it takes.
        """
        self._start_s = time.monotonic()
        try:
            self._workload.start()
            self._workload.pause()
            if difference := self._checker.await_converged(START_S):
                raise Violation(f"the cluster had not converged before the first fault: {difference}")
            for fault in self._order(rounds):
                if not rounds and time.monotonic() - self._start_s >= lasts_s:
                    break
                self._workload.resume()
                time.sleep(self._rng.uniform(*CALM_S))
                self._inject(fault)
        except Violation as violation:
            self.report.violations += violation.args
        except GalaxyError as error:
            self.report.violations.append(f"no further fault could be injected: {error}")
        finally:
            self._workload.close()
            known = self.report.violations
            known += [violation for violation in self._workload.violations if violation not in known]
            self._checker.close()
            self.report.changes = self._workload.changes
            self.report.counted = self._checker.witness_count()
            self.report.lasted_s = time.monotonic() - self._start_s
            self._listener.close()
        return self.report

    def _order(self, rounds: int) -> Iterator[Fault]:
        """Yield every fault ``rounds`` times; without rounds every fault once, then at random forever."""
        for _ in range(max(rounds, 1)):
            yield from self._rng.sample(self._selected, len(self._selected))
        while not rounds:
            yield self._rng.choice(self._selected)

    def _inject(self, fault: Fault) -> None:
        self._note(f"{fault.name} begins")
        target = faults.inject(fault, self._cluster, self._rng, self._victim_pid)
        over_s = time.monotonic()
        self._note(f"{fault.name} is over: {target}")
        self._workload.pause()
        self._workload.submit_batch()
        difference = self._checker.await_converged(RECOVERY_WAIT_S)
        recovery_s = time.monotonic() - over_s
        self._check(fault, difference, recovery_s)
        self.report.recoveries[fault.name].append(recovery_s)
        last = f"   last: {self._checker.last}" if self._checker.last else ""
        self._output(f"{self._clock():>8} {fault.name:<16} recovered after {recovery_s:5.2f} s{last}")
        self._note(f"recovered after {recovery_s:.2f} s{last}")
        if fault.part == "appworker":
            self._workload.replace_victim()

    def _check(self, fault: Fault, difference: str, recovery_s: float) -> None:
        """Raise if anything was violated since the last check.

        Raises:
            Violation: describes everything that was violated.
        """
        violations = self._listener.violations() + self._workload.violations
        if difference:
            violations.append(f"not recovered {recovery_s:.0f} s after {fault.name}: {difference}")
        elif recovery_s > self.report.within_s:
            late = f"recovered only {recovery_s:.1f} s after {fault.name}"
            violations.append(f"{late}; the promise is {self.report.within_s:g} s")
        if violations:
            raise Violation(*violations)

    def _victim_pid(self) -> int:
        """Return PID 1 of the victim's container, and allow its program to restart once."""
        job = self._workload.victim
        with self._cluster.galaxy(5.0) as galaxy:
            pods = galaxy.job(job).pods
        if not pods or not pods[0].pid:
            raise GalaxyError(f"{job} has no container to kill")
        self._listener.allow_restart(job)
        return pods[0].pid

    def _note(self, line: str) -> None:
        self.timeline.append(f"{self._clock():>8} {line}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._start_s:.1f}"
