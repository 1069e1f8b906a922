"""The lifecycles of pods and jobs: for every state and event, the state that follows.

The tables of expectations are written by hand, from what the states mean. ``.`` is unchanged.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest

from galaxy.appmaster.logic.jobs.transitions import (
    JOB_TRANSITIONS,
    POD_TRANSITIONS,
    AllEndedSomeFailed,
    AllFinished,
    AllStopped,
    AllUp,
    ContainerLost,
    DrainBegan,
    DrainCancelled,
    JobEvent,
    ObservedDeploying,
    ObservedDown,
    ObservedFailed,
    ObservedFinished,
    ObservedStopped,
    ObservedUp,
    PodEvent,
    RecoverRequested,
    RemoveRequested,
    RolloutResumed,
    RolloutStalled,
    RunOrdered,
    SomeFailed,
    StartRequested,
    StopOrdered,
    StopRequested,
    UpdateRequested,
)
from galaxy.model.stored.job import JobState, PodPhase
from galaxy.statemachine.transitions import TransitionTable

POD_EVENTS: tuple[type[PodEvent], ...] = (
    RunOrdered, StopOrdered, DrainBegan, DrainCancelled, ContainerLost, ObservedDeploying,
    ObservedUp, ObservedDown, ObservedStopped, ObservedFinished, ObservedFailed,
)  # fmt: skip
# An order always applies, except that a finished pod is not stopped. A report changes only a pod
# that was ordered to run, or one that is stopping; it never starts what no order has started.
PODS = """
            RunOrd    StopOrd  DrainBeg DrainCan Lost    Deploying Up      Down    Stopped Finished Failed
pending     deploying stopping .        .        .       .         .       .       .       .        .
deploying   .         stopping .        .        pending .         running backoff .       finished failed
running     deploying stopping draining .        pending deploying .       backoff .       finished failed
backoff     deploying stopping .        .        pending deploying running .       .       finished failed
draining    deploying stopping .        running  pending deploying .       backoff .       finished failed
stopping    deploying .        .        .        pending .         .       .       stopped finished stopped
stopped     deploying stopping .        .        pending .         .       .       .       .        .
finished    deploying .        .        .        .       .         .       .       .       .        .
failed      deploying stopping .        .        pending deploying running .       .       .        .
"""

JOB_EVENTS: tuple[type[JobEvent], ...] = (
    AllUp, SomeFailed, UpdateRequested, RolloutStalled, RolloutResumed, StopRequested, AllStopped,
    StartRequested, AllFinished, AllEndedSomeFailed, RecoverRequested, RemoveRequested,
)  # fmt: skip
# Removal applies to every job and is final. A job that is over changes only by a recovery of what
# failed, or by its removal.
JOBS = """
         AllUp   SomeFail Update   Stalled Resumed  Stop     Stopped Start   Finished SomeFail Recover Remove
pending  running degraded updating .       .        stopping .       .       finished failed   .       removing
running  .       degraded updating .       .        stopping .       .       finished failed   .       removing
degraded running .        updating .       .        stopping .       .       finished failed   pending removing
updating running .        .        stalled .        stopping .       .       finished failed   .       removing
stalled  running .        updating .       updating stopping .       .       finished failed   .       removing
stopping .       .        .        .       .        .        stopped pending finished failed   .       removing
stopped  .       .        .        .       .        .        .       pending finished failed   .       removing
finished .       .        .        .       .        .        .       .       .        .        .       removing
failed   .       .        .        .       .        .        .       .       .        .        pending removing
removing .       .        .        .       .        .        .       .       .        .        .       .
"""  # noqa: E501


def expectations(grid: str, states: type[Enum], events: tuple[type, ...]) -> Iterator[tuple[Any, type, Any]]:
    """Yield (state, event, next state) for every cell of a grid whose first line is a heading."""
    for line in grid.strip().splitlines()[1:]:
        name, *cells = line.split()
        state = states(name)
        for event, cell in zip(events, cells, strict=True):
            yield state, event, state if cell == "." else states(cell)


POD_PAIRS = list(expectations(PODS, PodPhase, POD_EVENTS))
JOB_PAIRS = list(expectations(JOBS, JobState, JOB_EVENTS))


def test_expectations_cover_every_pair() -> None:
    assert set(POD_EVENTS) == set(PodEvent.__subclasses__())
    assert set(JOB_EVENTS) == set(JobEvent.__subclasses__())
    assert len({pair[:2] for pair in POD_PAIRS}) == len(PodPhase) * len(POD_EVENTS)
    assert len({pair[:2] for pair in JOB_PAIRS}) == len(JobState) * len(JOB_EVENTS)


@pytest.mark.parametrize(("phase", "event", "expected"), POD_PAIRS)
def test_pod_in_phase_changes_on_event_as_expected(
    phase: PodPhase, event: type[PodEvent], expected: PodPhase
) -> None:
    assert (POD_TRANSITIONS.next_state(phase, event) or phase) is expected


@pytest.mark.parametrize(("state", "event", "expected"), JOB_PAIRS)
def test_job_in_state_changes_on_event_as_expected(
    state: JobState, event: type[JobEvent], expected: JobState
) -> None:
    assert (JOB_TRANSITIONS.next_state(state, event) or state) is expected


@pytest.mark.parametrize(
    ("table", "first"), [(POD_TRANSITIONS, PodPhase.PENDING), (JOB_TRANSITIONS, JobState.PENDING)]
)
def test_every_state_is_reached_from_pending(table: TransitionTable[Any], first: Enum) -> None:
    reached = {first}
    while len(reached) < len(type(first)):
        further = {to for (state, _), to in table.pairs().items() if state in reached} - reached
        assert further, f"not reached: {set(type(first)) - reached}"
        reached |= further
