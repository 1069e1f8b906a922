"""Liveness by the age of heartbeats, and the difference between a report and what is expected."""

import numpy as np

from galaxy.model.messages.container import ObservedContainer, ObservedContainerState
from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.liveness import HeartbeatAges
from galaxy.scheduler.reconcile import difference


def _ages() -> HeartbeatAges:
    return HeartbeatAges(suspect_s=10, dead_s=30, gap_s_max=5)


def _read_each_second(ages: HeartbeatAges, until_s: int, alive: list[int]) -> None:
    for second in range(1000, until_s + 1):
        ages.begin_reading(float(second))
        ages.record(alive, [float(second)] * len(alive))


def test_agent_is_recent_suspect_or_dead_by_the_age_of_its_heartbeat() -> None:
    ages = _ages()
    ages.begin_reading(1000.0)
    ages.record([0, 1, 2], [1000.0] * 3)
    _read_each_second(ages, 1020, [0])
    status = np.array([PlacementStatus.OPEN, PlacementStatus.OPEN, PlacementStatus.DEAD])
    judged = ages.classify(status)
    assert (judged.recent.tolist(), judged.suspect.tolist(), judged.dead.tolist()) == ([], [1], [])
    _read_each_second(ages, 1031, [0, 2])
    judged = ages.classify(status)
    assert (judged.recent.tolist(), judged.suspect.tolist(), judged.dead.tolist()) == ([2], [], [1])


def test_gap_between_readings_makes_no_heartbeat_old() -> None:
    ages = _ages()
    _read_each_second(ages, 1005, [0])
    ages.begin_reading(1100.0)
    assert ages.classify(np.array([PlacementStatus.OPEN])).dead.tolist() == []
    for second in range(1101, 1132):
        ages.begin_reading(float(second))
    assert ages.classify(np.array([PlacementStatus.OPEN])).dead.tolist() == [0]


def test_agent_without_a_heartbeat_is_not_recent_and_ages_from_the_first_reading() -> None:
    ages = _ages()
    ages.begin_reading(1000.0)
    assert not ages.is_recent(5)
    judged = ages.classify(np.array([PlacementStatus.OPEN]))
    assert judged.suspect.tolist() == judged.dead.tolist() == []


def test_heartbeat_of_a_clock_that_runs_ahead_is_not_younger_than_now() -> None:
    ages = _ages()
    ages.begin_reading(1000.0)
    ages.record([0], [5000.0])
    assert ages.age_s(0) == 0.0


def test_only_a_full_report_shows_that_something_is_missing() -> None:
    expected = {("a", 1): "a", ("b", 2): "b"}
    observed = [_ready("a", 1), _ready("b", 1)]
    full = difference(expected, observed, full=True)
    assert [key for key, _ in full.known] == ["a"]
    assert [one.container for one in full.unknown] == ["b"]
    assert full.missing == ("b",)
    assert difference(expected, observed, full=False).missing == ()


def _ready(container: str, incarnation: int) -> ObservedContainer:
    return ObservedContainer(container=container, incarnation=incarnation, state=ObservedContainerState.READY)
