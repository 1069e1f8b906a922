"""Pods whose containers change their size: when they may, and what they wait for.

A pod whose turn in the rollout has come is no longer among those that keep their size; ResMan resizes its
container where it is. If that host has no room and another one has, the pod leaves as in any move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.container import RESIZE_IN_USE, RESIZE_MOVES, SlotStatus
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.job import JobRecord, PodPhase, PodRecord


def is_sized(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether the container of ``pod`` has the size of the job's current revision."""
    return pod.size == job.size


def in_force(state: AppMasterState, job: JobRecord, rows: Sequence[PodRecord]) -> Resources | None:
    """Return what the placed containers of ``job`` have together.

    None if it is what they ask for, or if the last revision with one of their sizes is pruned.
    """
    placed = Counter(pod.size for pod in rows if pod.placed)
    if set(placed) <= {job.size}:
        return None
    total = NOTHING
    for size, count in placed.items():
        spec = _spec_of_size(state, job, size)
        if spec is None:
            return None
        total = total.plus(demand_of(spec).resources, count)
    return total


def _spec_of_size(state: AppMasterState, job: JobRecord, size: int) -> JobSpec | None:
    rows = (state.revisions[key] for key in state.revisions.where("job", job.job))
    return next((row.spec for row in rows if row.size == size), None)


def may_update(state: AppMasterState, pod: PodRecord) -> bool:
    """Return whether the program of ``pod`` may become that of its target revision.

    It waits for the size of that revision, so that it does not run with less than its owner asked for. If
    the old program uses too much memory for the new size, the new one has to come first.
    """
    if pod.size >= state.size_of(pod.job, pod.target):
        return True
    return pod.resize is not None and pod.resize.code == RESIZE_IN_USE


def wants_to_move(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is to leave its host, which has no room for its new size, for another.

    The last pod that serves stays, if its job has more pods than may be away at once.
    """
    if is_sized(job, pod) or pod.is_leaving or pod.target != job.revision:
        return False
    if pod.resize is None or pod.resize.code != RESIZE_MOVES:
        return False
    step = state.spec(job.job, job.revision).deploy.step
    if not pod.up or job.replica <= 1 or step >= job.replica:
        return True
    serving = state.pods.count("phase", (job.job, PodPhase.RUNNING))
    return serving > 1 or (serving == 1 and pod.phase is not PodPhase.RUNNING)


def kept_sizes(state: AppMasterState, job: JobRecord, rows: list[PodRecord]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of pods whose containers keep their size, because their turn has not come."""
    if job.rollout is None or not job.size:
        return ()
    sizes: dict[int, int] = {}
    ranges: list[tuple[int, int]] = []
    for pod in sorted(rows, key=lambda each: each.index):
        if pod.target not in sizes:
            sizes[pod.target] = state.size_of(job.job, pod.target)
        if sizes[pod.target] == job.size:
            continue
        if ranges and ranges[-1][1] == pod.index - 1:
            ranges[-1] = (ranges[-1][0], pod.index)
        else:
            ranges.append((pod.index, pod.index))
    return tuple(ranges)


def record(state: AppMasterState, pod: PodRecord, slot: SlotStatus) -> None:
    """Record what a status of ResMan says about the size of the container of ``pod``; reconcile its job."""
    if slot.size != pod.size and slot.size == state.jobs[pod.job].size:
        state.record_event(pod.job, "pod.resized", pod.pod, f"in place on {pod.agent}")
    elif slot.resize is not None and (pod.resize is None or pod.resize.code != slot.resize.code):
        state.record_event(pod.job, "pod.resize-waits", pod.pod, slot.resize.message)
    state.touch(pod.job)
