"""The lifecycle of a slot: every pair of state and event against expectations written by hand."""

import itertools

import pytest

from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.container import Container
from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.groups.transitions import (
    TRANSITIONS,
    AgentLost,
    SlotAdopted,
    SlotDestroyed,
    SlotEvent,
    SlotFailed,
    SlotMoved,
    SlotPlaced,
    SlotReleased,
    SlotRequested,
    SlotStarted,
    after,
)

CONFIG = ResManConfig()
WHY = Reason(code="test", message="a test says so")
S = ContainerState
NOW_S = 500.0

EVENTS: dict[type[SlotEvent], SlotEvent] = {
    SlotPlaced: SlotPlaced(incarnation=4, agent="h2"),
    SlotStarted: SlotStarted(incarnation=3, ports={"http": 20001}),
    SlotAdopted: SlotAdopted(incarnation=3, agent="h3", ports={"http": 20002}),
    SlotFailed: SlotFailed(incarnation=3, reason=WHY),
    AgentLost: AgentLost(incarnation=3, reason=WHY),
    SlotMoved: SlotMoved(incarnation=3, avoid=("h1",), reason=WHY),
    SlotReleased: SlotReleased(incarnation=3),
    SlotRequested: SlotRequested(incarnation=3),
    SlotDestroyed: SlotDestroyed(incarnation=3),
}


def _slot(state: ContainerState) -> Container:
    placed = state in (S.ALLOCATING, S.READY, S.DESTROYING)
    return Container(
        container="web-1.0",
        group="web-1",
        slot=0,
        incarnation=3,
        state=state,
        agent="h1" if placed else "",
        ports={"http": 20000} if placed else {},
        since_s=490.0,
    )


EXPECTED: dict[ContainerState, dict[type[SlotEvent], ContainerState]] = {
    S.PENDING: {SlotPlaced: S.ALLOCATING, SlotAdopted: S.READY, SlotReleased: S.GONE},
    S.ALLOCATING: {
        SlotStarted: S.READY,
        SlotFailed: S.PENDING,
        AgentLost: S.PENDING,
        SlotMoved: S.PENDING,
        SlotReleased: S.DESTROYING,
    },
    S.READY: {
        SlotStarted: S.READY,
        SlotFailed: S.PENDING,
        AgentLost: S.PENDING,
        SlotMoved: S.PENDING,
        SlotReleased: S.DESTROYING,
    },
    S.DESTROYING: {SlotDestroyed: S.GONE, AgentLost: S.GONE, SlotRequested: S.PENDING},
    S.GONE: {SlotRequested: S.PENDING},
}
"""Every other pair changes nothing."""


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(S, EVENTS)))
def test_every_pair_of_state_and_event_has_the_expected_result(
    state: ContainerState, kind: type[SlotEvent]
) -> None:
    before = _slot(state)
    result = after(before, EVENTS[kind], NOW_S, CONFIG)
    expected = EXPECTED[state].get(kind)
    if expected is None:
        assert result is before
    else:
        assert result.state is expected
        assert bool(result.agent) == (expected in (S.ALLOCATING, S.READY, S.DESTROYING))
        assert result.incarnation == (4 if kind is SlotPlaced else 3)


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(S, EVENTS)))
def test_event_of_an_earlier_incarnation_changes_nothing(
    state: ContainerState, kind: type[SlotEvent]
) -> None:
    before = _slot(state)
    earlier = EVENTS[kind].__class__(
        **{
            name: getattr(EVENTS[kind], name)
            for name in EVENTS[kind].__struct_fields__
            if name != "incarnation"
        },
        incarnation=2,
    )
    assert after(before, earlier, NOW_S, CONFIG) is before


def test_every_state_can_be_left() -> None:
    leaving = {state for (state, _), to in TRANSITIONS.pairs().items() if to is not state}
    assert leaving == set(S)


def test_failures_in_a_row_double_the_wait_up_to_its_maximum() -> None:
    waits = []
    slot = _slot(S.ALLOCATING)
    for _ in range(9):
        ended = after(slot, SlotFailed(incarnation=slot.incarnation, reason=WHY), NOW_S, CONFIG)
        waits.append(ended.retry_s - NOW_S)
        placed = SlotPlaced(incarnation=ended.incarnation + 1, agent="h1")
        slot = after(ended, placed, NOW_S, CONFIG)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_last_five_agents_that_failed_are_avoided_latest_first() -> None:
    slot = _slot(S.PENDING)
    for number in range(7):
        slot = after(slot, SlotPlaced(incarnation=slot.incarnation + 1, agent=f"h{number}"), NOW_S, CONFIG)
        slot = after(slot, SlotFailed(incarnation=slot.incarnation, reason=WHY), NOW_S, CONFIG)
    assert slot.avoid == ("h6", "h5", "h4", "h3", "h2")


def test_failure_after_a_long_ready_time_counts_as_the_first() -> None:
    slot = after(_slot(S.ALLOCATING), EVENTS[SlotFailed], NOW_S, CONFIG)
    slot = after(slot, EVENTS[SlotPlaced], NOW_S, CONFIG)
    slot = after(slot, SlotStarted(incarnation=4, ports={}), NOW_S, CONFIG)
    later_s = NOW_S + CONFIG.reset_s
    ended = after(slot, SlotFailed(incarnation=4, reason=WHY), later_s, CONFIG)
    assert (ended.failures, ended.avoid, ended.retry_s - later_s) == (1, (), 1.0)


def test_reason_stays_during_the_next_try_and_goes_when_it_succeeds() -> None:
    slot = after(_slot(S.ALLOCATING), EVENTS[SlotFailed], NOW_S, CONFIG)
    slot = after(slot, EVENTS[SlotPlaced], NOW_S, CONFIG)
    assert slot.reason == WHY
    assert after(slot, SlotStarted(incarnation=4, ports={}), NOW_S, CONFIG).reason is None
