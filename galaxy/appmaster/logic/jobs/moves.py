"""Pods that their host cannot run: they try other hosts, each once, before they fail for good.

Hosts that join later are tried too.
"""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.container import HOST_FAILED, Reason, SlotMove
from galaxy.model.messages.pod import ObservedPod, PodState
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord

TIMER: Final = "hosts"
"""Kind of the timer that moves failed pods after hosts have joined."""
SETTLE_S: Final = 5.0
MOVES_MAX: Final = 100
"""Pods that one timer moves: a new host has room for a few of them."""
_STUCK = (PodState.FAILED, PodState.DEPLOYING)


def is_failed_by_host(observed: ObservedPod) -> bool:
    """Return whether an AppWorker cannot run its pod, and its host may be the cause."""
    reasons = [task.reason for task in observed.tasks if task.reason is not None]
    return observed.state in _STUCK and any(reason.code == HOST_FAILED for reason in reasons)


def after_failure(state: AppMasterState, agents: AgentReports, pod: PodRecord) -> PodRecord:
    """Return ``pod`` after a failure on its agent: it leaves for another agent if one is left to try.

    None is left after ``failed_on_max`` agents, or when the pod is placed on one of them again because no
    other has room for it. Then the failure is final, or the pod is tried again in place.
    """
    tried = pod.failed_on
    failed_on = (*(name for name in tried if name != pod.agent), pod.agent)[-state.config.failed_on_max :]
    others = agents.alive(state.now_s, state.dead_s) - set(failed_on)
    if pod.agent in tried or len(failed_on) >= state.config.failed_on_max or not others:
        return msgspec.structs.replace(pod, failed_on=failed_on)
    text = f"leaves {pod.agent}" + (f": {pod.reason.message}" if pod.reason else "")
    state.record_event(pod.job, "pod.leaves", pod.pod, text)
    return msgspec.structs.replace(pod, failed_on=failed_on, leaves=pod.incarnation)


def on_first_heartbeat(state: AppMasterState, agent: str, *, joined: bool) -> None:
    """Have failed pods try ``agent``, which is alive for the first time or again.

    Not ``joined``: it was alive before this leadership. ResMan needs a moment until it places pods on it.
    """
    if joined:
        state.joined_agents.add(agent)
    state.timers.set_if_sooner((TIMER, TIMER), state.now_s + SETTLE_S)


def on_timer(state: AppMasterState, agents: AgentReports) -> None:
    """Move the next pods that wait for a host that they have not tried, each once for each arrival."""
    waiting = state.pods_without_host
    if state.joined_agents or not waiting:
        others = agents.alive(state.now_s, state.dead_s)
        for key in state.pods.where("tried", True):
            if _may_move(state, state.pods[key], others):
                waiting[key] = None
        state.joined_agents = set()
    for key in list(waiting)[:MOVES_MAX]:
        del waiting[key]
        pod = state.pods.get(key)
        if pod is not None and _is_stuck(state, pod):
            text = f"leaves {pod.agent}: another host has joined that it has not tried"
            state.record_event(pod.job, "pod.leaves", pod.pod, text)
            state.put_pod(msgspec.structs.replace(pod, leaves=pod.incarnation))
    if waiting:
        state.timers.set_if_sooner((TIMER, TIMER), state.now_s + SETTLE_S)


def _may_move(state: AppMasterState, pod: PodRecord, alive: set[str]) -> bool:
    """Return whether there is an agent for ``pod`` to try: one that joined, or one of its first few."""
    tried = set(pod.failed_on)
    if not _is_stuck(state, pod):
        return False
    return bool(state.joined_agents - tried) or (
        len(tried) < state.config.failed_on_max and bool(alive - tried)
    )


def _is_stuck(state: AppMasterState, pod: PodRecord) -> bool:
    """Return whether ``pod`` should run, and its agent cannot run it. A batch pod that failed has ended."""
    job = state.jobs[pod.job]
    return (
        pod.placed
        and not pod.is_leaving
        and job.desired is DesiredState.RUN
        and pod.index < job.replica
        and not (job.type.is_batch and pod.phase is PodPhase.FAILED)
        and pod.observed is not None
        and is_failed_by_host(pod.observed)
    )


def leaving(state: AppMasterState, job: str) -> tuple[tuple[int, int], ...]:
    """Return index and incarnation of the pods of ``job`` that leave their agents."""
    rows = [state.pods[key] for key in state.pods.where("leaving", job)]
    return tuple(sorted((pod.index, pod.incarnation) for pod in rows))


def orders(state: AppMasterState, job: JobRecord) -> tuple[SlotMove, ...]:
    """Return the moves of the last order for the job's group that are not done yet."""
    rows = [state.pods[key] for key in state.pods.where("leaving", job.job)] if job.group_moves else []
    return tuple(
        SlotMove(slot=pod.index, incarnation=pod.incarnation, avoid=pod.failed_on, reason=_why(pod))
        for pod in sorted(rows, key=lambda each: each.index)
        if (pod.index, pod.incarnation) in job.group_moves
    )


def _why(pod: PodRecord) -> Reason | None:
    """Return why ``pod`` leaves its agent: as ResMan said, or because the agent failed it."""
    return pod.leave.reason if pod.is_evacuating and pod.leave is not None else pod.reason


def with_hosts(reason: Reason | None, pod: PodRecord) -> Reason | None:
    """Return the reason of a pod that its host failed, with the hosts that it has tried."""
    if reason is None or reason.code != HOST_FAILED:
        return reason
    others = [name for name in pod.failed_on if name != pod.agent]
    tried = f"; before that it failed on {', '.join(others)}" if others else ""
    return msgspec.structs.replace(reason, message=f"on {pod.agent}: {reason.message}{tried}")
