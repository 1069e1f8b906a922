"""Whether a cluster has converged: observed equals desired, every part is up, and new work completes."""

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

COUNT_AGE_S_MAX: Final = 1.0
"""A witness whose last number is older counts as stopped."""
POLL_S: Final = 0.1
REQUEST_S: Final = 1.5


class ConvergenceChecker:
    """Compares what clients of the cluster and the witnesses observe with what the workload expects."""

    def __init__(self, cluster: RealCluster, listener: WitnessListener, workload: Workload) -> None:
        self._cluster = cluster
        self._listener = listener
        self._workload = workload
        self._galaxy: Galaxy | None = None
        self._ended: set[str] = set()
        self.last = ""
        """The difference that took longest to disappear during the last ``await_converged``."""

    def close(self) -> None:
        """Close the client."""
        if self._galaxy is not None:
            self._galaxy.close()

    def await_converged(self, timeout_s: float) -> str:
        """Return "" as soon as the cluster has converged, or the remaining difference after ``timeout_s``.

        A cluster does not announce convergence, so it is polled ten times a second.
        """
        deadline = time.monotonic() + timeout_s
        self.last = ""
        while True:
            self._cluster.restart_standbys()
            difference = self._first_difference()
            self.last = difference or self.last
            if not difference or time.monotonic() >= deadline:
                return difference
            time.sleep(POLL_S)

    def witness_count(self) -> int:
        """Return how often the programs of the unchanged job ``witness`` have counted."""
        with self._listener.lock:
            return self._listener.log.counted(WITNESS)

    def _first_difference(self) -> str:
        try:
            if self._galaxy is None:
                self._galaxy = self._cluster.galaxy(REQUEST_S)
            return next(self._differences(self._galaxy), "")
        except GalaxyError as error:
            return error.message

    def _differences(self, galaxy: Galaxy) -> Iterator[str]:
        """Yield differences, those that are cheapest to find first."""
        roles_led = {leader.role for leader in galaxy.leaders()}
        yield from (f"no {role} leads" for role in ROLES if role not in roles_led)
        for role in ROLES:
            if (count := len(self._cluster.pids(role))) < self._cluster.leaders:
                yield f"{count} of {self._cluster.leaders} processes of {role} run"
        states = [agent.state for agent in galaxy.agents()]
        if (alive := states.count(AgentState.ALIVE)) != self._cluster.agents:
            yield f"{alive} of {self._cluster.agents} agents are alive"
        for job in self._workload.expected.values():
            if job.name not in self._ended:
                yield from self._job_differences(galaxy, job)
        yield from self._count_differences()

    def _job_differences(self, galaxy: Galaxy, job: ExpectedJob) -> Iterator[str]:
        try:
            view = galaxy.job(job.name)
        except NotFound:
            if job.state != "removed":
                yield f"{job.name} is not known"
            return
        summary = view.summary
        if summary.state != job.state or not view.settled:
            yield f"{job.name} is {summary.state}, expected {job.state}" + (
                "" if view.settled else ", not settled"
            )
        if job.state == "running":
            version = view.spec.pod.tasks[0].env.get("CHAOS_VERSION")
            if (summary.replica, version) != (job.replica, str(job.version)):
                yield f"{job.name} has {summary.replica} replicas at version {version}, expected {job}"
            if summary.healthy != job.replica:
                yield f"{job.name} has {summary.healthy} of {job.replica} healthy"
        if job.state in ("removed", "finished"):
            self._ended.add(job.name)

    def _count_differences(self) -> Iterator[str]:
        now_s = time.monotonic()
        with self._listener.lock:
            log = self._listener.log
            for job in self._workload.expected.values():
                if job.state == "finished":
                    kinds = log.batches.get(job.name, [])
                    if kinds != ["started", "finished"]:
                        yield f"{job.name} is finished, but its program reported {kinds}"
                    continue
                replica = job.replica if job.state == "running" else 0
                for index in log.not_counting(job.name, replica, now_s, COUNT_AGE_S_MAX):
                    yield f"{job.name}.{index} does not count"
                for index in log.still_counting(job.name, replica, now_s, COUNT_AGE_S_MAX / 2):
                    yield f"{job.name}.{index} still counts"
