"""Rollouts: pods move to a new revision, at most ``deploy.step`` at once.

A pod occupies one of the ``step`` slots from when its update begins until it has been healthy on the
new revision for ``min_healthy_s`` without a break, and for ``interval`` if that is longer. A pod whose
new revision fails keeps its slot: the rollout stalls, and the pods on the old revision keep serving. Pods
that are down are updated first, because no client uses them. A pod that waits for a container occupies
no slot, because the new revision is not the reason.
"""

from __future__ import annotations

import msgspec

from galaxy.appmaster.logic.jobs import pods, resizes, restarts
from galaxy.appmaster.logic.jobs.transitions import RolloutResumed, RolloutStalled
from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.container import Reason
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord, Rollout
from galaxy.units import format_duration


def begin(state: AppMasterState, job: JobRecord, origin: int) -> JobRecord:
    """Begin to move the pods of ``job`` from revision ``origin`` to its own; an earlier rollout ends."""
    if job.desired is not DesiredState.RUN:
        for pod in state.job_pods(job.job):
            pods.write(state, pod, target=job.revision)
        return state.put_job(msgspec.structs.replace(job, rollout=None))
    for pod in state.job_pods(job.job):
        if pod.target != pod.revision and pod.revision:
            pods.write(
                state, pod, target=pod.revision
            )  # Its update was chosen, but not ordered: it stays on its revision.
    rollout = Rollout(origin=origin, began_s=state.now_s, progressed_s=state.now_s)
    return state.put_job(msgspec.structs.replace(job, rollout=rollout))


def advance(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Update the next pods if slots are free; record when the rollout stalls, resumes and is done."""
    rollout = job.rollout
    if rollout is None or job.desired is not DesiredState.RUN:
        return job
    rows = [pod for pod in state.job_pods(job.job) if pod.index < job.replica]
    for pod in rows:
        if pod.target != job.revision and not pod.revision:
            pods.write(state, pod, target=job.revision)  # Nothing was ever deployed in it.
    rows = [state.pods[pod.pod] for pod in rows]
    good = sum(_is_good(state, job, pod) for pod in rows)
    if good > rollout.good:
        rollout = msgspec.structs.replace(rollout, progressed_s=state.now_s, good=good)
    elif good < rollout.good:
        rollout = msgspec.structs.replace(rollout, good=good)
    if good == len(rows):
        text = f"all {len(rows)} pods run revision {job.revision}"
        state.record_event(job.job, "rollout.done", job.job, text)
        return state.put_job(msgspec.structs.replace(job, rollout=None))
    stalled = _stall_reason(state, job, rollout, rows)
    job = _store(state, job, msgspec.structs.replace(rollout, stalled=stalled))
    if stalled is None:
        _update_next(state, job, rows)
    return job


def _is_good(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is updated: on the new revision, and healthy for long enough."""
    if pods.never_runs_again(job, pod):
        return True
    if pod.target != job.revision or pod.revision != job.revision or pod.healthy_s is None:
        return False
    if not resizes.is_sized(job, pod):
        return False
    return not _is_ahead(state, job, pod.healthy_s + state.config.min_healthy_s)


def _stall_reason(
    state: AppMasterState, job: JobRecord, rollout: Rollout, rows: list[PodRecord]
) -> Reason | None:
    """Return why no further pod may be updated: pods fail, or no pod became good within the deadline."""
    failing = [pod for pod in rows if _fails(state, job, pod)]
    if failing:
        first = failing[0]
        reason = restarts.trouble(first)
        why = reason.message if reason else "its programs failed for good"
        message = f"revision {job.revision} fails: {first.pod}: {why}"
        kept = sum(pod.target != job.revision for pod in rows)
        counts = {"failing": len(failing), "kept": kept}
        return Reason(code="rollout-stalled", message=message, counts=counts)
    deadline_s = state.config.progress_deadline_s
    if _is_ahead(state, job, rollout.progressed_s + deadline_s):
        return None
    begun = [pod for pod in rows if pod.target == job.revision]
    away = [pod for pod in begun if pod.healthy_s is None or not resizes.is_sized(job, pod)]
    names = ", ".join(pod.pod for pod in away[:3]) or "none"
    why = next((f": {pod.resize.message}" for pod in away if pod.resize is not None), "")
    message = f"no pod became healthy for {format_duration(deadline_s)}; waits for {names}{why}"
    return Reason(code="rollout-stalled", message=message, counts={"away": len(away)})


def _fails(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is down on the new revision for good, or restarts again and again."""
    if not (pod.target == job.revision == pod.revision and pod.placed and not pod.up):
        return False
    if not pods.is_acked(pod):
        return False  # What was reported last is about the revision before.
    return pod.phase is PodPhase.FAILED or restarts.since_order(pod) >= state.config.stall_restarts


def _store(state: AppMasterState, job: JobRecord, rollout: Rollout) -> JobRecord:
    """Store ``rollout`` and apply to ``job`` that it stalled or resumed."""
    before = job.rollout.stalled if job.rollout else None
    if rollout != job.rollout:
        job = state.put_job(msgspec.structs.replace(job, rollout=rollout))
    if rollout.stalled is not None and before is None:
        return state.apply_job_event(job, RolloutStalled, rollout.stalled.message)
    if rollout.stalled is None and before is not None:
        return state.apply_job_event(job, RolloutResumed)
    return job


def _update_next(state: AppMasterState, job: JobRecord, rows: list[PodRecord]) -> None:
    """Make the new revision the target of as many further pods as slots are free."""
    deploy = state.spec(job.job, job.revision).deploy
    remaining = [pod for pod in rows if pod.target != job.revision]
    updating = [
        pod for pod in rows if pod.target == job.revision and _occupies_slot(state, job, pod, deploy.interval)
    ]
    serving = sum(pod.up and pod.phase is PodPhase.RUNNING for pod in rows)
    keeps_one = job.replica > 1 and deploy.step < job.replica
    evacuating = sum(pod.is_evacuating for pod in remaining)  # They are away, too.
    free = deploy.step - len(updating) - evacuating
    for pod in sorted(remaining, key=_down_first):
        if free <= 0:
            return
        if pod.up:
            if keeps_one and serving <= 1 and _interrupts(state, job, pod):
                return  # It is the last pod that serves.
            serving -= 1
        text = f"revision {pod.revision} to {job.revision}"
        state.record_event(job.job, "rollout.pod", pod.pod, text)
        rerun = pod.phase is PodPhase.FINISHED and not job.type.is_batch
        pods.write(state, pod, target=job.revision, recover=rerun or pod.recover)
        free -= 1


def _occupies_slot(state: AppMasterState, job: JobRecord, pod: PodRecord, interval_s: float) -> bool:
    if not pod.placed or pods.never_runs_again(job, pod):
        return False
    if pod.healthy_s is None or pod.revision != job.revision or not resizes.is_sized(job, pod):
        return True
    return _is_ahead(state, job, pod.healthy_s + max(state.config.min_healthy_s, interval_s))


def _interrupts(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether updating ``pod`` interrupts its programs."""
    old, new = state.resolved_spec(job.job, pod.revision), state.resolved_spec(job.job, job.revision)
    return impact(old, new) >= Impact.RELOAD


def _is_ahead(state: AppMasterState, job: JobRecord, due_s: float) -> bool:
    """Return whether ``due_s`` is in the future; if so, set a timer that reconciles the job then."""
    if due_s > state.now_s:
        state.timers.set_if_sooner(("job", job.job), due_s)
    return due_s > state.now_s


def _down_first(pod: PodRecord) -> tuple[bool, int]:
    return (pod.up, pod.index)
