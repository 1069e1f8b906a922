"""Whether a cluster is whole: found equals wanted, all are there, something new is taken and done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError, NotFound
from galaxy.model.messages.agent import AgentState
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import WITNESS, ExpectedJob, Workload

FRESH_S: Final = 1.0
"""A witness that has not counted for so long is not counting."""
LOOK_S: Final = 0.1
ASK_S: Final = 1.5


class Checker:
    """Asks the cluster, as its users may, and the witnesses."""

    def __init__(self, cluster: RealCluster, watch: WitnessListener, load: Workload) -> None:
        self._cluster = cluster
        self._watch = watch
        self._load = load
        self._galaxy: Galaxy | None = None
        self._over: set[str] = set()
        self.last = ""
        """What was the last to be whole again."""

    def close(self) -> None:
        if self._galaxy is not None:
            self._galaxy.close()

    def await_whole(self, timeout_s: float) -> str:
        """Return "" as soon as the cluster is whole, or what is missing after ``timeout_s``.

        A cluster does not tell when it is whole: it is asked, ten times a second.
        """
        deadline = time.monotonic() + timeout_s
        self.last = ""
        while True:
            self._cluster.tend()
            missing = self._missing()
            self.last = missing or self.last
            if not missing or time.monotonic() >= deadline:
                return missing
            time.sleep(LOOK_S)

    def _missing(self) -> str:
        try:
            if self._galaxy is None:
                self._galaxy = self._cluster.galaxy(ASK_S)
            return next(self._lacks(self._galaxy), "")
        except GalaxyError as error:
            return error.message

    def _lacks(self, galaxy: Galaxy) -> Iterator[str]:
        """Yield what is missing, the cheapest to find out first."""
        led = {leader.role for leader in galaxy.leaders()}
        yield from (f"no {role} leads" for role in ROLES if role not in led)
        for role in ROLES:
            if (count := len(self._cluster.pids(role))) < self._cluster.leaders:
                yield f"{count} of {self._cluster.leaders} processes of {role} run"
        states = [agent.state for agent in galaxy.agents()]
        if (alive := states.count(AgentState.ALIVE)) != self._cluster.agents:
            yield f"{alive} of {self._cluster.agents} agents are alive"
        for job in self._load.wanted.values():
            if job.name not in self._over:
                yield from self._lacks_of(galaxy, job)
        yield from self._miscounts()

    def _lacks_of(self, galaxy: Galaxy, job: ExpectedJob) -> Iterator[str]:
        try:
            view = galaxy.job(job.name)
        except NotFound:
            if job.state != "removed":
                yield f"{job.name} is not known"
            return
        found = view.summary
        if found.state != job.state or not view.settled:
            yield f"{job.name} is {found.state}, wanted {job.state}" + (
                "" if view.settled else ", not settled"
            )
        if job.state == "running":
            turn = view.spec.pod.tasks[0].env.get("CHAOS_TURN")
            if (found.replica, turn) != (job.replica, str(job.turn)):
                yield f"{job.name} has {found.replica} replicas in turn {turn}, wanted {job}"
            if found.healthy != job.replica:
                yield f"{job.name} has {found.healthy} of {job.replica} healthy"
        if job.state in ("removed", "finished"):
            self._over.add(job.name)

    def _miscounts(self) -> Iterator[str]:
        now_s = time.monotonic()
        with self._watch.lock:
            ledger = self._watch.ledger
            for job in self._load.wanted.values():
                if job.state == "finished":
                    told = ledger.batches.get(job.name, [])
                    if told != ["began", "done"]:
                        yield f"{job.name} is finished, and its program said {told}"
                    continue
                replica = job.replica if job.state == "running" else 0
                for index in ledger.silent(job.name, replica, now_s, FRESH_S):
                    yield f"{job.name}.{index} does not count"
                for index in ledger.loud(job.name, replica, now_s, FRESH_S / 2):
                    yield f"{job.name}.{index} still counts"

    def witnesses(self) -> int:
        """Return how often the untouched witnesses have counted."""
        with self._watch.lock:
            return self._watch.ledger.counted(WITNESS)
