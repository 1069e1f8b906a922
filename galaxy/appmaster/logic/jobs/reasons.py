"""Why a job or a pod is not in its desired state, as views show it. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from galaxy.appmaster.logic.jobs import groups, pods, resizes, restarts
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.job import JobRecord, JobState, PodPhase, PodRecord

SLOW_S: Final = 5.0
"""A pod that is in one phase for less than this is in progress, and needs no reason."""

_AT_REST: Final = (PodPhase.STOPPED, PodPhase.FINISHED, PodPhase.FAILED)


def is_gone(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` was removed: its container is gone and is not replaced."""
    return pods.is_being_removed(job, pod) and not pod.placed and pod.phase not in _AT_REST


def of_job(state: AppMasterState, job: JobRecord, rows: Sequence[PodRecord]) -> Reason | None:
    """Return why ``job`` is not as desired: its rollout, or the reason of its pods in the worst phase."""
    if job.rollout is not None and job.rollout.stalled is not None:
        return job.rollout.stalled
    down = [pod for pod in rows if not pod.up and not is_gone(job, pod)]
    for phase, what, code in (
        (PodPhase.FAILED, "failed", "pod-failed"),
        (PodPhase.PENDING, "pending", ""),
        (PodPhase.BACKOFF, "backoff", "pod-down"),
        (None, "not healthy", ""),
    ):
        affected = [pod for pod in down if pod.phase is phase or phase is None]
        for pod in affected:
            why = of_pod(state, job, pod)
            if why is not None:
                return _of_some(job, len(affected), f"{what}: {pod.pod}", why, code=code)
    looping = [pod for pod in rows if restarts.since_order(pod) >= state.config.stall_restarts]
    if job.state is JobState.DEGRADED and looping:
        why = restarts.last_restart(looping[0]) or Reason(code="restarted")
        return _of_some(job, len(looping), f"not steady: {looping[0].pod}", why, code="pod-down")
    held = [
        pod for pod in rows if pod.up and pod.resize is not None and of_pod(state, job, pod) == pod.resize
    ]
    if held and held[0].resize is not None:
        what = f"waiting for a new size: {held[0].pod}"
        return _of_some(job, len(held), what, held[0].resize, code="")
    return None


def _of_some(job: JobRecord, count: int, what: str, why: Reason, *, code: str) -> Reason:
    message = f"{count} of {job.replica} pods {what}: {why.message or why.code}"
    return Reason(code=code or why.code, message=message, counts=why.counts, nearest=why.nearest)


def of_pod(state: AppMasterState, job: JobRecord, pod: PodRecord) -> Reason | None:
    """Return why ``pod`` is not as desired: how its program ended, or what it waits for."""
    why = restarts.trouble(pod)
    if why is None and pod.placed and not resizes.is_sized(job, pod):
        why = pod.resize
    if why is not None or pod.up or not pods.should_run(job, pod) or pods.is_over(job, pod):
        return why
    if pod.phase is PodPhase.FAILED:
        return Reason(code="failed", message="its programs failed for good")
    if state.now_s - pod.since_s < SLOW_S:
        return None
    return Reason(code="waiting", message=_awaited(state, job, pod))


def _awaited(state: AppMasterState, job: JobRecord, pod: PodRecord) -> str:
    if not pod.placed:
        if not groups.is_acked(state, job):
            return "ResMan has not confirmed the order for its container yet"
        return "ResMan has not placed its container yet"
    if pod.slot is not ContainerState.READY:
        return f"its container on {pod.agent} is not created yet"
    if not pods.is_acked(pod):
        return f"{pod.agent} has not confirmed its order yet"
    names = ", ".join(task.name for task in pod.observed.tasks if not task.healthy) if pod.observed else ""
    what = "no health check has succeeded yet" if pod.phase is PodPhase.RUNNING else f"still {pod.phase}"
    return f"task {names}: {what}" if names else what
