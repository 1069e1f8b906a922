"""The phases of a hosted container: every (phase, event) pair against expectations written by hand."""

from __future__ import annotations

import pytest

from galaxy.agent.logic import events
from galaxy.agent.logic.records import HostedPhase
from galaxy.agent.logic.transitions import TRANSITIONS

STALE = "-"
COLUMNS = (
    "Unblocked", "LaunchRejected", "ContainerLaunched", "ContainerLaunchFailed", "PortsUnavailable",
    "ContainerEnded", "ContainerDestroyed", "ReleaseRequested",
)  # fmt: skip
EXPECTED = {
    #              unblocked rejected launched   failed     no ports ended      destroyed release
    "waiting":    "launching ended    -          -          -        -          -         gone",
    "launching":  "-         -        ready      ended      waiting  ended      ended     destroying",
    "ready":      "-         -        -          -          -        ended      ended     destroying",
    "ended":      "-         -        -          -          -        -          ended     destroying",
    "destroying": "-         -        destroying destroying -        destroying gone      -",
    "gone":       "-         -        -          -          -        -          -         -",
}  # fmt: skip
PAIRS = [
    (phase, event, after)
    for phase, row in EXPECTED.items()
    for event, after in zip(COLUMNS, row.split(), strict=True)
]


@pytest.mark.parametrize(("phase", "event", "after"), PAIRS)
def test_event_moves_a_container_to_the_expected_phase_or_is_stale(
    phase: str, event: str, after: str
) -> None:
    expected = None if after == STALE else HostedPhase(after)
    assert TRANSITIONS.next_state(HostedPhase(phase), getattr(events, event)) is expected


def test_expectations_cover_every_phase_and_every_event_of_the_table() -> None:
    assert set(EXPECTED) == {str(phase) for phase in HostedPhase}
    assert {event.__name__ for _, event in TRANSITIONS.pairs()} == set(COLUMNS)
