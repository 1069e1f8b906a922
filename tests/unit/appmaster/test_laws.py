"""The two laws, pair by pair: what no sequence of events can do, and what every state allows."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from galaxy.appmaster.logic.jobs import transitions
from galaxy.appmaster.logic.jobs.transitions import JOB_TRANSITIONS, POD_TRANSITIONS, JobEvent, PodEvent
from galaxy.model.stored.job import JobState, PodPhase

POD_EVENTS = sorted(PodEvent.__subclasses__(), key=lambda event: event.__name__)
JOB_EVENTS = sorted(JobEvent.__subclasses__(), key=lambda event: event.__name__)
PLACED = [phase for phase in PodPhase if phase not in (PodPhase.PENDING, PodPhase.FINISHED)]
LIVE = [state for state in JobState if state is not JobState.REMOVING]
OVER = (JobState.FINISHED, JobState.FAILED)


def reachable(pairs: Mapping[tuple[Any, type], Any], start: Any) -> set[Any]:
    found: set[Any] = {start}
    before: set[Any] = set()
    while found != before:
        before = set(found)
        found |= {after for (state, _), after in pairs.items() if state in found}
    return found


def test_every_pod_phase_is_reached_from_pending() -> None:
    assert reachable(POD_TRANSITIONS.pairs(), PodPhase.PENDING) == set(PodPhase)


def test_every_job_state_is_reached_from_pending() -> None:
    assert reachable(JOB_TRANSITIONS.pairs(), JobState.PENDING) == set(JobState)


def test_laws_speak_of_known_events_only_and_of_each() -> None:
    assert {event for _, event in POD_TRANSITIONS.pairs()} == set(POD_EVENTS)
    assert {event for _, event in JOB_TRANSITIONS.pairs()} == set(JOB_EVENTS)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(PodPhase, POD_EVENTS)))
def test_pod_pair(phase: PodPhase, event: type[PodEvent]) -> None:
    after = POD_TRANSITIONS.next_state(phase, event)
    if phase is PodPhase.FINISHED:
        assert after is (PodPhase.DEPLOYING if event is transitions.RunOrdered else None)
    elif event is transitions.RunOrdered:
        assert after is PodPhase.DEPLOYING
    elif event is transitions.StopOrdered:
        assert after is PodPhase.STOPPING
    elif event is transitions.ContainerLost:
        assert after is (PodPhase.PENDING if phase in PLACED else None)
    elif event is transitions.DrainBegan:
        assert after is (PodPhase.DRAINING if phase is PodPhase.RUNNING else None)
    elif event is transitions.DrainCancelled:
        assert after is (PodPhase.RUNNING if phase is PodPhase.DRAINING else None)
    elif event is transitions.ObservedStopped:
        assert after is (PodPhase.STOPPED if phase is PodPhase.STOPPING else None)
    elif phase is PodPhase.STOPPING:  # What ends while it stops is stopped, or done for good.
        expected = {
            transitions.ObservedFinished: PodPhase.FINISHED,
            transitions.ObservedFailed: PodPhase.STOPPED,
        }
        assert after is expected.get(event)
    elif phase in (PodPhase.PENDING, PodPhase.STOPPED):
        assert after is None  # A report cannot start what was not ordered.
    else:
        expected = {
            transitions.ObservedUp: PodPhase.RUNNING,
            transitions.ObservedDown: PodPhase.BACKOFF,
            transitions.ObservedDeploying: PodPhase.DEPLOYING,
            transitions.ObservedFinished: PodPhase.FINISHED,
            transitions.ObservedFailed: PodPhase.FAILED,
        }
        unchanged = expected[event] is phase or (
            phase is PodPhase.DRAINING and event is transitions.ObservedUp
        )
        final = phase is PodPhase.FAILED and event in (transitions.ObservedDown, transitions.ObservedFinished)
        assert after is (None if unchanged or final else expected[event])


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JOB_EVENTS)))
def test_job_pair(state: JobState, event: type[JobEvent]) -> None:
    after = JOB_TRANSITIONS.next_state(state, event)
    resting = (JobState.STOPPING, JobState.STOPPED)
    going = [each for each in LIVE if each not in (*OVER, *resting)]
    expected = {
        transitions.RemoveRequested: (LIVE, JobState.REMOVING),
        transitions.StopRequested: (going, JobState.STOPPING),
        transitions.UpdateRequested: (going, JobState.UPDATING),
        transitions.StartRequested: (resting, JobState.PENDING),
        transitions.AllStopped: ((JobState.STOPPING,), JobState.STOPPED),
        transitions.AllUp: (
            (JobState.PENDING, JobState.UPDATING, JobState.STALLED, JobState.DEGRADED),
            JobState.RUNNING,
        ),
        transitions.SomeFailed: ((JobState.PENDING, JobState.RUNNING), JobState.DEGRADED),
        transitions.RolloutStalled: ((JobState.UPDATING,), JobState.STALLED),
        transitions.RolloutResumed: ((JobState.STALLED,), JobState.UPDATING),
        transitions.AllFinished: ((*going, *resting), JobState.FINISHED),
        transitions.AllEndedSomeFailed: ((*going, *resting), JobState.FAILED),
        transitions.RecoverRequested: ((JobState.FAILED, JobState.DEGRADED), JobState.PENDING),
    }
    states, becomes = expected[event]
    assert after is (becomes if state in states else None)
