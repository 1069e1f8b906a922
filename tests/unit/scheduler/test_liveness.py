"""Ages of beats."""

import numpy as np

from galaxy.model.messages.container import ObservedContainer, ObservedContainerState
from galaxy.scheduler.cluster_view import Standing
from galaxy.scheduler.liveness import Pulse
from galaxy.scheduler.reconcile import difference


def _pulse() -> Pulse:
    return Pulse(suspect_s=10, dead_s=30, blind_s=5)


def _watch(pulse: Pulse, until_s: int, beating: list[int]) -> None:
    for second in range(1000, until_s + 1):
        pulse.read(float(second))
        pulse.beat(beating, [float(second)] * len(beating))


def test_agents_are_judged_by_the_age_of_their_beats() -> None:
    pulse = _pulse()
    pulse.read(1000.0)
    pulse.beat([0, 1, 2], [1000.0] * 3)
    _watch(pulse, 1020, [0])
    standing = np.array([Standing.OPEN, Standing.OPEN, Standing.DEAD])
    judged = pulse.judge(standing)
    assert (judged.fresh.tolist(), judged.suspect.tolist(), judged.dead.tolist()) == ([], [1], [])
    _watch(pulse, 1031, [0, 2])
    judged = pulse.judge(standing)
    assert (judged.fresh.tolist(), judged.suspect.tolist(), judged.dead.tolist()) == ([2], [], [1])


def test_a_gap_between_readings_makes_no_one_old() -> None:
    pulse = _pulse()
    _watch(pulse, 1005, [0])
    pulse.read(1100.0)
    assert pulse.judge(np.array([Standing.OPEN])).dead.tolist() == []
    for second in range(1101, 1132):
        pulse.read(float(second))
    assert pulse.judge(np.array([Standing.OPEN])).dead.tolist() == [0]


def test_an_agent_never_heard_is_not_fresh_and_counts_from_the_first_reading() -> None:
    pulse = _pulse()
    pulse.read(1000.0)
    assert not pulse.fresh(5)
    judged = pulse.judge(np.array([Standing.OPEN]))
    assert judged.suspect.tolist() == judged.dead.tolist() == []


def test_a_clock_that_runs_ahead_does_not_make_a_beat_younger_than_now() -> None:
    pulse = _pulse()
    pulse.read(1000.0)
    pulse.beat([0], [5000.0])
    assert pulse.age_s(0) == 0.0


def test_only_a_full_report_shows_that_something_is_missing() -> None:
    booked = {("a", 1): "a", ("b", 2): "b"}
    found = [_found("a", 1), _found("b", 1)]
    full = difference(booked, found, full=True)
    assert [key for key, _ in full.known] == ["a"]
    assert [one.container for one in full.strange] == ["b"]
    assert full.missing == ("b",)
    assert difference(booked, found, full=False).missing == ()


def _found(container: str, incarnation: int) -> ObservedContainer:
    return ObservedContainer(container=container, incarnation=incarnation, state=ObservedContainerState.READY)
