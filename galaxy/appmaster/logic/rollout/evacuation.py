"""Evacuation: pods leave agents that are drained, or that their job may not use any more.

ResMan says which pods are to leave, and keeps room for each elsewhere (``Leave``). Each pod that leaves
is drained and its programs are stopped; then its container moves (``SlotMove``). Pods of a service leave
at the pace of a rollout: at most ``deploy.step`` are away at once, and a pod that has moved counts as
away until it has been healthy for ``min_healthy_s``, and for ``interval`` if that is longer. A job of
several pods keeps at least one. Pods of batch jobs stay until they end. A pod that is evicted, or that
has served nobody for long, leaves at once.
"""

from __future__ import annotations

from galaxy.appmaster.logic.jobs import groups, pods
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.jobspec.spec import DeploySpec
from galaxy.model.messages.container import Reason
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord


def advance(state: AppMasterState, job: JobRecord) -> None:
    """Begin, continue or cancel the moves of the pods of ``job`` that are to leave their agents."""
    if not state.pods.count("asked_to_leave", job.job):
        return
    waiting = [pod for pod in state.job_pods(job.job) if _needs_turn(state, job, pod)]
    if not waiting:
        return
    rows = state.job_pods(job.job)
    steady = {pod.pod for pod in rows if is_steady(state, job, pod)}
    least = healthy_min(job, state.spec(job.job, job.revision).deploy)
    for pod in sorted(waiting, key=lambda pod: (pod.up, pod.index)):
        if len(steady - {pod.pod}) < least:
            return  # A pod that becomes steady reconciles the job.
        steady.discard(pod.pod)
        _begin(state, pod)


def healthy_min(job: JobRecord, deploy: DeploySpec) -> int:
    """Return how many pods of a service stay healthy while others leave their agents."""
    return max(job.replica - deploy.step, 1 if job.replica > 1 else 0)


def is_steady(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` serves, and has been healthy for long enough; if not yet, set a timer."""
    if not (pod.up and pod.phase is PodPhase.RUNNING and pod.healthy_s is not None):
        return False
    if pod.index >= job.replica or pod.is_evacuating or pod.recover or pod.target != pod.revision:
        return False
    deploy = state.spec(job.job, job.revision).deploy
    due_s = pod.healthy_s + max(state.config.min_healthy_s, deploy.interval)
    if due_s > state.now_s:
        state.timers.set_if_sooner(("job", job.job), due_s)
    return due_s <= state.now_s


def why_here(state: AppMasterState, job: JobRecord, pod: PodRecord) -> Reason | None:
    """Return why ``pod``, which is to leave its agent, is still there; None if it may stay."""
    leave = pod.leave
    if leave is None or not pod.placed:
        return None
    if pod.is_leaving:
        return _reason(leave.reason, "its container is being moved")
    if pod.is_evacuating:
        return _reason(
            leave.reason, "its programs are being stopped" + (f", for {leave.to}" if leave.to else "")
        )
    if job.type.is_batch and not leave.evict and pods.should_run(job, pod):
        return _reason(leave.reason, "it leaves when it has ended")
    if not leave.may_go:
        blocked = leave.blocked
        if blocked is None:
            return _reason(leave.reason, "no room was found for it elsewhere yet")
        return Reason(
            code=leave.reason.code, message=f"{leave.reason.message}; {blocked.message}",
            counts=blocked.counts, nearest=blocked.nearest,
        )  # fmt: skip
    deploy = state.spec(job.job, job.revision).deploy
    steady = sum(is_steady(state, job, each) for each in state.job_pods(job.job))
    least = healthy_min(job, deploy)
    return _reason(
        leave.reason,
        f"it waits for its turn: {steady} of {job.replica} pods have been healthy for long enough, "
        f"and at least {least} must stay healthy (step {deploy.step}, interval {deploy.interval:g}s)",
    )


def _needs_turn(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Do for ``pod`` what needs no regard for others; return whether it waits for its job's pace."""
    leave = pod.leave
    if not pod.placed or pod.is_leaving or pods.is_being_removed(job, pod) or groups.is_released(job, pod):
        return False
    if pod.is_evacuating:
        if leave is None or not leave.may_go:
            pods.write(state, pod, evacuates=0)  # It runs on where it is.
        elif pods.is_down(state, job, pod):
            _leave(state, pod)
        return False
    if leave is None or not leave.may_go:
        return False
    if pods.is_over(job, pod) or job.desired is not DesiredState.RUN:
        if pods.is_down(state, job, pod):
            _leave(state, pod)
        return False
    if leave.evict or (not job.type.is_batch and _is_down_for_long(state, pod)):
        _begin(state, pod)
        return False
    return not job.type.is_batch


def _is_down_for_long(state: AppMasterState, pod: PodRecord) -> bool:
    """Return whether ``pod`` serves nobody and will not soon; a timer reconciles the job when it may.

    A pod that is only being restarted is not stopped while its job lacks healthy pods.
    """
    if pod.up:
        return False
    if pod.phase is PodPhase.FAILED or pods.is_crash_looping(state, pod):
        return True
    due_s = pod.since_s + state.config.steady_s
    if due_s > state.now_s:
        state.timers.set_if_sooner(("job", pod.job), due_s)
    return due_s <= state.now_s


def _begin(state: AppMasterState, pod: PodRecord) -> None:
    leave = pod.leave
    assert leave is not None
    where = f" for {leave.to}" if leave.to else ", although no other has room"
    what = "is evicted from" if leave.evict else "leaves"
    state.record_event(
        pod.job, "pod.evacuates", pod.pod, f"{what} {pod.agent}{where}: {leave.reason.message}"
    )
    pods.write(state, pod, evacuates=pod.incarnation)


def _leave(state: AppMasterState, pod: PodRecord) -> None:
    """Order the move of a pod without running programs."""
    state.record_event(pod.job, "pod.leaves", pod.pod, f"leaves {pod.agent}")
    pods.write(state, pod, evacuates=pod.incarnation, leaves=pod.incarnation)


def _reason(why: Reason, what: str) -> Reason:
    return Reason(code=why.code, message=f"{why.message}; {what}")
