"""The two laws, pair by pair: what no sequence of events can do, and what every state allows."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from galaxy.appmaster.logic import laws
from galaxy.appmaster.logic.laws import JOB_LAW, POD_LAW, JobEvent, PodEvent
from galaxy.model.job import JobState, PodPhase

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
    assert reachable(POD_LAW.pairs(), PodPhase.PENDING) == set(PodPhase)


def test_every_job_state_is_reached_from_pending() -> None:
    assert reachable(JOB_LAW.pairs(), JobState.PENDING) == set(JobState)


def test_laws_speak_of_known_events_only_and_of_each() -> None:
    assert {event for _, event in POD_LAW.pairs()} == set(POD_EVENTS)
    assert {event for _, event in JOB_LAW.pairs()} == set(JOB_EVENTS)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(PodPhase, POD_EVENTS)))
def test_pod_pair(phase: PodPhase, event: type[PodEvent]) -> None:
    after = POD_LAW.after(phase, event)
    if phase is PodPhase.FINISHED:
        assert after is (PodPhase.DEPLOYING if event is laws.RunOrdered else None)
    elif event is laws.RunOrdered:
        assert after is PodPhase.DEPLOYING
    elif event is laws.StopOrdered:
        assert after is PodPhase.STOPPING
    elif event is laws.ContainerLost:
        assert after is (PodPhase.PENDING if phase in PLACED else None)
    elif event is laws.DrainBegan:
        assert after is (PodPhase.DRAINING if phase is PodPhase.RUNNING else None)
    elif event is laws.DrainCancelled:
        assert after is (PodPhase.RUNNING if phase is PodPhase.DRAINING else None)
    elif event is laws.SeenStopped:
        assert after is (PodPhase.STOPPED if phase is PodPhase.STOPPING else None)
    elif phase is PodPhase.STOPPING:  # What ends while it stops is stopped, or done for good.
        expected = {laws.SeenFinished: PodPhase.FINISHED, laws.SeenFailed: PodPhase.STOPPED}
        assert after is expected.get(event)
    elif phase in (PodPhase.PENDING, PodPhase.STOPPED):
        assert after is None  # A report cannot start what was not ordered.
    else:
        expected = {
            laws.SeenUp: PodPhase.RUNNING,
            laws.SeenDown: PodPhase.BACKOFF,
            laws.SeenDeploying: PodPhase.DEPLOYING,
            laws.SeenFinished: PodPhase.FINISHED,
            laws.SeenFailed: PodPhase.FAILED,
        }
        unchanged = expected[event] is phase or (phase is PodPhase.DRAINING and event is laws.SeenUp)
        final = phase is PodPhase.FAILED and event in (laws.SeenDown, laws.SeenFinished)
        assert after is (None if unchanged or final else expected[event])


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JOB_EVENTS)))
def test_job_pair(state: JobState, event: type[JobEvent]) -> None:
    after = JOB_LAW.after(state, event)
    resting = (JobState.STOPPING, JobState.STOPPED)
    going = [each for each in LIVE if each not in (*OVER, *resting)]
    expected = {
        laws.RemoveAsked: (LIVE, JobState.REMOVING),
        laws.StopAsked: (going, JobState.STOPPING),
        laws.UpdateAsked: (going, JobState.UPDATING),
        laws.StartAsked: (resting, JobState.PENDING),
        laws.AllStopped: ((JobState.STOPPING,), JobState.STOPPED),
        laws.AllUp: (
            (JobState.PENDING, JobState.UPDATING, JobState.STALLED, JobState.DEGRADED),
            JobState.RUNNING,
        ),
        laws.SomeFailed: ((JobState.PENDING, JobState.RUNNING), JobState.DEGRADED),
        laws.RolloutStalled: ((JobState.UPDATING,), JobState.STALLED),
        laws.RolloutMoved: ((JobState.STALLED,), JobState.UPDATING),
        laws.AllEndedWell: ((*going, *resting), JobState.FINISHED),
        laws.AllEndedSomeFailed: ((*going, *resting), JobState.FAILED),
        laws.Recovered: ((JobState.FAILED, JobState.DEGRADED), JobState.PENDING),
    }
    states, becomes = expected[event]
    assert after is (becomes if state in states else None)
