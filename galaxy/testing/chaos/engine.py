"""The run: calm, a fault, whole again, and so on, until time is over or a promise is broken."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from galaxy.errors import GalaxyError
from galaxy.testing.chaos import faults
from galaxy.testing.chaos.convergence import Checker
from galaxy.testing.chaos.faults import Fault
from galaxy.testing.chaos.real_cluster import RealCluster
from galaxy.testing.chaos.report import ChaosReport
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload

START_S: Final = 60.0
PATIENCE_S: Final = 60.0
"""How long a cluster that is late is waited for, to know how late it is."""
CALM_S: Final = (0.3, 2.0)
"""Shortest and longest time between being whole and the next fault; changes go on meanwhile."""
STORY_LINES: Final = 60


class Broken(Exception):
    """A promise was broken; the arguments say which."""


class Engine:
    """Does ``chosen`` faults to ``cluster``. The same seed strikes in the same order.

    ``tell`` takes lines for people.
    """

    def __init__(
        self,
        cluster: RealCluster,
        chosen: Sequence[Fault],
        *,
        seed: int,
        within_s: float,
        tell: Callable[[str], None],
    ) -> None:
        self.report = ChaosReport(seed, cluster.agents, cluster.leaders, within_s)
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self._cluster = cluster
        self._chosen = tuple(chosen)
        self._chance = random.Random(seed)  # noqa: S311 - chance that can be replayed is the point
        self._tell = tell
        self._began_s = time.monotonic()
        self._watch = WitnessListener()
        changes = random.Random(seed + 1)  # noqa: S311 - as above
        self._load = Workload(cluster, self._watch, changes, self._note)
        self._checker = Checker(cluster, self._watch, self._load)

    def run(self, lasts_s: float) -> ChaosReport:
        """Run for ``lasts_s``; what was broken is in the report."""
        self._began_s = time.monotonic()
        try:
            self._load.start()
            self._load.hold()
            if missing := self._checker.await_whole(START_S):
                raise Broken(f"the cluster was not whole before any fault: {missing}")
            for fault in self._order():
                if time.monotonic() - self._began_s >= lasts_s:
                    break
                self._load.go()
                time.sleep(self._chance.uniform(*CALM_S))
                self._strike(fault)
        except Broken as broken:
            self.report.broken += broken.args
        except GalaxyError as error:
            self.report.broken.append(f"no fault could be done any more: {error}")
        finally:
            self._load.close()
            self.report.broken += [wrong for wrong in self._load.wrong if wrong not in self.report.broken]
            self._checker.close()
            self.report.changes = self._load.changes
            self.report.counted = self._checker.witnesses()
            self.report.lasted_s = time.monotonic() - self._began_s
            self._watch.close()
        return self.report

    def _order(self) -> Iterator[Fault]:
        """Every fault once, then at random."""
        yield from self._chance.sample(self._chosen, len(self._chosen))
        while True:
            yield self._chance.choice(self._chosen)

    def _strike(self, fault: Fault) -> None:
        self._note(f"{fault.name} begins")
        whom = faults.do(fault, self._cluster, self._chance, self._victim)
        over_s = time.monotonic()
        self._note(f"{fault.name} is over: {whom}")
        self._load.hold()
        self._load.probe()
        missing = self._checker.await_whole(PATIENCE_S)
        recovery_s = time.monotonic() - over_s
        self._judge(fault, missing, recovery_s)
        self.report.recoveries[fault.name].append(recovery_s)
        waited = f"   last: {self._checker.last}" if self._checker.last else ""
        self._tell(f"{self._clock():>8} {fault.name:<16} whole again after {recovery_s:5.2f} s{waited}")
        self._note(f"whole again after {recovery_s:.2f} s{waited}")
        if fault.part == "appworker":
            self._load.renew_victim()

    def _judge(self, fault: Fault, missing: str, recovery_s: float) -> None:
        """Raise what was broken.

        Raises:
            Broken: with all of it.
        """
        wrong = self._watch.wrong() + self._load.wrong
        if missing:
            wrong.append(f"not whole {recovery_s:.0f} s after {fault.name}: {missing}")
        elif recovery_s > self.report.within_s:
            late = f"whole again only {recovery_s:.1f} s after {fault.name}"
            wrong.append(f"{late}; {self.report.within_s:g} s are promised")
        if wrong:
            raise Broken(*wrong)

    def _victim(self) -> int:
        """Return the PID 1 of the victim, and let it begin anew once."""
        job = self._load.victim
        with self._cluster.galaxy(5.0) as galaxy:
            pods = galaxy.job(job).pods
        if not pods or not pods[0].pid:
            raise GalaxyError(f"{job} has no container to strike")
        self._watch.allow(job)
        return pods[0].pid

    def _note(self, line: str) -> None:
        self.story.append(f"{self._clock():>8} {line}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began_s:.1f}"
