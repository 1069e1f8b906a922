"""Moving pods to a new revision: at most ``step`` away at once, each slot freed only by health.

A pod holds a slot from when it is taken until it has been up on the new revision for
``min_healthy_s`` without a break, and ``interval`` longer before the next one is taken. A pod
whose new revision fails holds its slot for ever: the rollout stalls, and the pods of the old
revision serve on. Pods that are down are taken first, for nobody misses them. A pod that waits
for a container holds no slot: that says nothing of the new revision.
"""

from __future__ import annotations

import msgspec

from galaxy.appmaster.logic.jobs import pods
from galaxy.appmaster.logic.jobs.transitions import RolloutResumed, RolloutStalled
from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.appmaster.logic.state import AppMasterState, is_batch
from galaxy.model.messages.container import Reason
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord, Rollout
from galaxy.units import format_duration


def begin(state: AppMasterState, job: JobRecord, origin: int) -> JobRecord:
    """Start moving the pods of ``job`` to its present revision; an earlier rollout ends here."""
    now_s = state.now_s
    if job.desired is not DesiredState.RUN:
        for pod in state.job_pods(job.job):
            pods.write(state, pod, target=job.revision)
        return state.put_job(msgspec.structs.replace(job, rollout=None))
    for pod in state.job_pods(job.job):
        if pod.target != pod.revision and pod.revision:
            pods.write(state, pod, target=pod.revision)  # Taken, but not yet told: it stays as it is.
    return state.put_job(
        msgspec.structs.replace(job, rollout=Rollout(origin=origin, began_s=now_s, moved_s=now_s))
    )


def advance(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Take the next pods if slots are free; say so when it stalls and when it is done."""
    rollout = job.rollout
    if rollout is None or job.desired is not DesiredState.RUN:
        return job
    rows = [pod for pod in state.job_pods(job.job) if pod.index < job.replica]
    for pod in rows:
        if pod.target != job.revision and not pod.revision:
            pods.write(state, pod, target=job.revision)  # Nothing was ever deployed there.
    rows = [state.pods[pod.pod] for pod in rows]
    good = [pod for pod in rows if _is_good(state, job, pod)]
    if len(good) > rollout.good:
        rollout = msgspec.structs.replace(rollout, moved_s=state.now_s, good=len(good))
    elif len(good) < rollout.good:
        rollout = msgspec.structs.replace(rollout, good=len(good))
    if len(good) == len(rows):
        state.record_event(
            job.job, "rollout.done", job.job, f"all {len(rows)} pods run revision {job.revision}"
        )
        return state.put_job(msgspec.structs.replace(job, rollout=None))
    stalled = _why_stalled(state, job, rollout, rows)
    job = _note(state, job, rollout, stalled)
    if stalled is None:
        _take(state, job, rows)
    return job


def _is_good(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` is where the rollout wants it, and proved it for ``min_healthy_s``."""
    if pods.is_over(job, pod) and is_batch(job.type):
        return True
    if pod.target != job.revision or pod.revision != job.revision or pod.healthy_s is None:
        return False
    due_s = pod.healthy_s + state.config.min_healthy_s
    if due_s > state.now_s:
        state.timers.at(("job", job.job), due_s)
    return due_s <= state.now_s


def _why_stalled(
    state: AppMasterState, job: JobRecord, rollout: Rollout, rows: list[PodRecord]
) -> Reason | None:
    config = state.config
    bad = []
    for pod in rows:
        if pod.target == job.revision == pod.revision and pod.placed and pod.observed and not pod.up:
            restarts = sum(task.restarts for task in pod.observed.tasks)
            if pod.phase is PodPhase.FAILED or restarts >= config.stall_restarts:
                bad.append(pod)
    if bad:
        why = bad[0].reason.message if bad[0].reason else str(bad[0].phase)
        message = f"revision {job.revision} fails: {bad[0].pod}: {why}"
        late = sum(pod.target != job.revision for pod in rows)
        return Reason(code="rollout-stalled", message=message, counts={"failing": len(bad), "kept": late})
    due_s = rollout.moved_s + config.progress_deadline_s
    if due_s > state.now_s:
        state.timers.at(("job", job.job), due_s)
        return None
    away = [pod for pod in rows if pod.target == job.revision and pod.healthy_s is None]
    names = ", ".join(pod.pod for pod in away[:3]) or "none"
    message = f"no pod became healthy for {format_duration(config.progress_deadline_s)}; waits for {names}"
    return Reason(code="rollout-stalled", message=message, counts={"away": len(away)})


def _note(state: AppMasterState, job: JobRecord, rollout: Rollout, stalled: Reason | None) -> JobRecord:
    was = rollout.stalled
    rollout = msgspec.structs.replace(rollout, stalled=stalled)
    if rollout != job.rollout:
        job = state.put_job(msgspec.structs.replace(job, rollout=rollout))
    if stalled is not None and was is None:
        return state.apply_job_event(job, RolloutStalled, stalled.message)
    if stalled is None and was is not None:
        return state.apply_job_event(job, RolloutResumed)
    return job


def _take(state: AppMasterState, job: JobRecord, rows: list[PodRecord]) -> None:
    deploy = state.spec(job.job, job.revision).deploy
    late = [pod for pod in rows if pod.target != job.revision]
    busy = [
        pod for pod in rows if pod.target == job.revision and _holds_slot(state, job, pod, deploy.interval)
    ]
    serving = sum(pod.up and pod.phase is PodPhase.RUNNING for pod in rows)
    spare_one = job.replica > 1 and deploy.step < job.replica
    free = deploy.step - len(busy)
    for pod in sorted(late, key=_down_first):
        if free <= 0:
            return
        if pod.up:
            if spare_one and serving <= 1 and _takes_away(state, job, pod):
                return
            serving -= 1
        state.record_event(job.job, "rollout.pod", pod.pod, f"revision {pod.revision} to {job.revision}")
        redo = pod.phase is PodPhase.FINISHED and not is_batch(job.type)
        pods.write(state, pod, target=job.revision, recover=redo or pod.recover)
        free -= 1


def _holds_slot(state: AppMasterState, job: JobRecord, pod: PodRecord, interval_s: float) -> bool:
    if not pod.placed or (pods.is_over(job, pod) and is_batch(job.type)):
        return False
    if pod.healthy_s is None or pod.revision != job.revision:
        return True
    due_s = pod.healthy_s + max(state.config.min_healthy_s, interval_s)
    if due_s > state.now_s:
        state.timers.at(("job", job.job), due_s)
    return due_s > state.now_s


def _takes_away(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    return (
        impact(state.resolved_spec(job.job, pod.revision), state.resolved_spec(job.job, job.revision))
        >= Impact.RELOAD
    )


def _down_first(pod: PodRecord) -> tuple[bool, int]:
    return (pod.up, pod.index)
