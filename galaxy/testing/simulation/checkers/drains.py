"""Drains: a job keeps its healthy pods while others leave, and a drained host ends empty or says why."""

from __future__ import annotations

from galaxy.appmaster.logic.rollout.evacuation import healthy_min
from galaxy.model.messages.container import ContainerState
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container
from galaxy.model.stored.job import JobRecord, PodRecord
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess


class KeepsMinimum:
    """AppMaster begins to stop a healthy pod of a service only if enough others are healthy.

    A pod that is evicted, or belongs to a batch job, is excepted.
    """

    def __init__(self) -> None:
        self._ticks: dict[str, int] = {}
        self._evacuating: set[tuple[str, int]] = set()
        self._up: set[tuple[str, int]] = set()
        """Pods that were healthy at the last check, with their incarnations."""
        self.moves = 0
        """Healthy pods that left their hosts at their job's pace."""

    def check(self, leader: LeaderProcess) -> None:
        """Check the pods of a leading AppMaster, unless it has not stepped since the last check."""
        if leader.logic is None or leader.must_recover or self._ticks.get(leader.name) == leader.ticks:
            return
        self._ticks[leader.name] = leader.ticks
        state = leader.logic.state  # type: ignore[attr-defined]
        pods, jobs = leader.table("pods"), leader.table("jobs")
        now = {(pod.pod, pod.incarnation): pod for pod in pods.values() if pod.is_evacuating}
        new = [pod for key, pod in now.items() if key not in self._evacuating and key in self._up]
        self._evacuating = set(now)
        self._up = {(pod.pod, pod.incarnation) for pod in pods.values() if pod.up}
        for job_id in sorted({pod.job for pod in new}):
            job = jobs.get(job_id)
            if job is None or job.type.is_batch or job.desired != "run":
                continue
            rows = [pods[key] for key in pods.where("job", job_id)]
            self._check_job(job, rows, [pod for pod in new if pod.job == job_id], state)

    def _check_job(self, job: JobRecord, rows: list[PodRecord], new: list[PodRecord], state: object) -> None:
        paced = [pod for pod in new if pod.leave is not None and not pod.leave.evict]
        if not paced:
            return
        self.moves += len(paced)
        deploy = state.spec(job.job, job.revision).deploy  # type: ignore[attr-defined]
        least = healthy_min(job, deploy)
        healthy = sum(pod.up and not pod.is_evacuating and pod.index < job.replica for pod in rows)
        if healthy < least:
            names = ", ".join(pod.pod for pod in paced)
            raise Violation(f"{names} began to leave with {healthy} of at least {least} other pods healthy")


def undrained(agents: dict[str, AgentRecord], rows: dict[str, Container], batch: set[str]) -> list[str]:
    """Return the containers on drained hosts that do not say why they stay; groups in ``batch`` end."""
    found = []
    for row in rows.values():
        record = agents.get(row.agent)
        if record is None or record.drain is None:
            continue
        leave = row.leave
        explained = leave is not None and (bool(leave.blocked) or row.group in batch)
        if row.state is ContainerState.DESTROYING or not explained:
            found.append(f"{row.container}_{row.incarnation} is {row.state} on drained {row.agent}")
    return found
