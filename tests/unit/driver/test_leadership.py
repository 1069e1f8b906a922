"""A leadership, tick by tick, with Nexus in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from galaxy.driver.interfaces import Grant
from galaxy.driver.leadership import (
    FAILURE_WAIT_S_MAX,
    FAILURES_MAX,
    POISONOUS_MAX,
    POISONOUS_OF_ALL_MAX,
    Leadership,
)
from galaxy.driver.stored_format import STORED_READABLE, StoredFormat
from galaxy.errors import GalaxyError, NotLeader, Unreachable
from galaxy.model.api.request import Request
from galaxy.model.base import encode
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Step
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Add, Count, Tally


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FailingNexus(MemoryNexus):
    """Fails the first ``failures`` commits after they took effect, or with ``lost`` before."""

    def __init__(self, clock: Clock, *, failures: int, lost: bool = False) -> None:
        super().__init__(clock)
        self.failures = failures
        self.lost = lost
        self.commits = 0

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        self.commits += 1
        if not (self.lost and self.failures):
            super().commit(grant, serial, changes, trace)
        if self.failures:
            self.failures -= 1
            raise Unreachable("no answer")


def elect(nexus: MemoryNexus, owner: str = "a") -> Grant:
    grant = nexus.campaign("tally", owner, ttl_s=2.0, address=owner)
    assert isinstance(grant, Grant)
    return grant


def stored(nexus: MemoryNexus) -> dict[str, int]:
    return {name: row.total for name, row in nexus.read_table("tally", "counts", Count).items()}


def test_messages_of_a_step_are_returned_after_it_is_stored() -> None:
    nexus = MemoryNexus(Clock())
    leadership = Leadership(Tally(), nexus, elect(nexus))
    leadership.begin(1.0)
    (outcome,) = leadership.advance(2.0, [Add(name="x", by=3)])
    assert stored(nexus) == {"x": 3}
    assert [send.id for send in outcome.sends] == ["count:x:3"]


def test_trace_is_stored_with_the_step_and_dated_by_it() -> None:
    nexus = MemoryNexus(Clock())
    leadership = Leadership(Tally(), nexus, elect(nexus))
    leadership.begin(1.0)
    leadership.advance(2.5, [Add(name="x")])
    (event,) = nexus.trace(["x"])
    assert (event.kind, event.at_s) == ("tally.counted", 2.5)


def test_next_leader_starts_from_the_stored_state() -> None:
    clock = Clock()
    nexus = MemoryNexus(clock)
    first = Leadership(Tally(), nexus, elect(nexus))
    first.begin(1.0)
    first.advance(2.0, [Add(name="x", by=3)])
    clock.now_s += 5.0
    logic = Tally()
    second = Leadership(logic, nexus, elect(nexus, "b"))
    second.begin(6.0)
    second.advance(7.0, [Add(name="x")])
    assert stored(nexus) == {"x": 4}
    assert logic.led[0][0] > first.grant.epoch


def test_leader_whose_lease_went_to_another_writes_nothing_and_undoes_its_step() -> None:
    clock = Clock()
    nexus = MemoryNexus(clock)
    logic = Tally()
    old = Leadership(logic, nexus, elect(nexus))
    old.begin(1.0)
    old.advance(2.0, [Add(name="x")])
    clock.now_s += 5.0
    elect(nexus, "b")
    with pytest.raises(NotLeader):
        old.advance(8.0, [Add(name="x", by=100)])
    assert stored(nexus) == {"x": 1}
    assert logic.counts["x"].total == 1


def test_leader_whose_lease_may_have_expired_neither_commits_nor_sends() -> None:
    nexus = MemoryNexus(Clock())
    held = [True]
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus), lease_is_held=lambda: held[0])
    leadership.begin(1.0)
    held[0] = False
    with pytest.raises(NotLeader):
        leadership.advance(2.0, [Add(name="x")])
    assert stored(nexus) == {}
    assert "x" not in logic.counts


@pytest.mark.parametrize("lost", [False, True])
def test_commit_of_unknown_outcome_is_repeated_and_takes_effect_once(lost: bool) -> None:
    nexus = FailingNexus(Clock(), failures=2, lost=lost)
    leadership = Leadership(Tally(), nexus, elect(nexus), retry_policy=lambda: lambda _: True)
    leadership.begin(1.0)
    (outcome,) = leadership.advance(2.0, [Add(name="x")])
    assert nexus.commits == 3
    assert stored(nexus) == {"x": 1}
    assert len(nexus.trace(["x"])) == 1
    assert len(outcome.sends) == 1


def test_commit_of_unknown_outcome_that_is_not_retried_ends_the_leadership() -> None:
    nexus = FailingNexus(Clock(), failures=1)
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    with pytest.raises(NotLeader):
        leadership.advance(2.0, [Add(name="x")])
    assert "x" not in logic.counts


def test_poisonous_event_is_dropped_and_the_others_of_its_tick_take_effect() -> None:
    nexus = MemoryNexus(Clock())
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    outcomes = leadership.advance(2.0, [Add(name="x"), Add(name="bad", by=-1), Add(name="y")])
    assert stored(nexus) == {"x": 1, "y": 1}
    assert leadership.poisonous == 1
    assert [send.id for outcome in outcomes for send in outcome.sends] == ["count:x:1", "count:y:1"]
    leadership.advance(3.0, [Add(name="x")])
    assert stored(nexus) == {"x": 2, "y": 1}


def test_logic_that_raises_without_events_is_retried_and_finally_stops_leading() -> None:
    nexus = MemoryNexus(Clock())
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    logic.broken = True
    for _ in range(FAILURES_MAX - 1):
        (outcome,) = leadership.advance(2.0, [])
        assert outcome.wake_s is not None and outcome.wake_s > 2.0
    with pytest.raises(NotLeader):
        leadership.advance(2.0, [])


def test_time_that_goes_back_is_not_passed_to_the_logic() -> None:
    nexus = MemoryNexus(Clock())
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(10.0)
    leadership.advance(20.0, [])
    leadership.advance(15.0, [])
    assert [now_s for now_s, _ in logic.steps] == [20.0, 20.0]


def test_step_that_changes_nothing_is_not_written() -> None:
    nexus = FailingNexus(Clock(), failures=0)
    leadership = Leadership(Tally(), nexus, elect(nexus))
    leadership.begin(1.0)
    leadership.advance(2.0, [])
    assert nexus.commits == 0


def test_leadership_over_state_of_an_unreadable_format_is_refused() -> None:
    nexus = MemoryNexus(Clock())
    grant = elect(nexus)
    Leadership(Tally(), nexus, grant).begin(1.0)
    later = TableChange(
        table="format", key="tables", value=encode(StoredFormat(format=STORED_READABLE[-1] + 1))
    )
    nexus.commit(grant, 1, [later], [])
    with pytest.raises(GalaxyError, match="cannot lead tally: its state in Redis has format"):
        Leadership(Tally(), nexus, grant).begin(2.0)


def test_first_commit_stores_the_format_of_the_state() -> None:
    nexus = MemoryNexus(Clock())
    leadership = Leadership(Tally(), nexus, elect(nexus))
    leadership.begin(1.0)
    assert nexus.read_table("tally", "format", StoredFormat) == {}
    leadership.advance(2.0, [Add(name="x")])
    assert nexus.read_table("tally", "format", StoredFormat)["tables"].format in STORED_READABLE


def test_logic_recovers_once_before_the_step_after_one_that_raised() -> None:
    nexus = MemoryNexus(Clock())
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    leadership.advance(2.0, [Add(name="bad", by=-1)])
    assert logic.recovered == 0
    leadership.advance(3.0, [Add(name="x")])
    leadership.advance(4.0, [Add(name="x")])
    assert logic.recovered == 1


def test_many_poisonous_events_in_one_tick_cost_few_recoveries_and_other_kinds_take_effect() -> None:
    nexus = MemoryNexus(Clock())
    logic = Tally()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    bad = [Add(name="bad", by=-1)] * 1000
    request = Request(op="x", key="k", reply="r", deadline_s=9.0, body=None)
    outcomes = leadership.advance(2.0, [Add(name="x"), *bad, request])
    assert logic.recovered == POISONOUS_MAX + 1
    assert (leadership.poisonous, leadership.dropped) == (POISONOUS_MAX, 1000 - POISONOUS_MAX)
    assert stored(nexus) == {"x": 1}
    assert [reply.reply for outcome in outcomes for reply in outcome.replies] == ["r"]


class RaisesOnBadUsers(Tally):
    """Raises on each request of a user whose name starts with ``bad``."""

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        if any(isinstance(event, Request) and event.user.startswith("bad") for event in events):
            raise ValueError("a bug")
        return super().step(now_s, events)


def asked(user: str, reply: str = "") -> Request:
    return Request(op="x", key="k", reply=reply, deadline_s=9.0, user=user)


@pytest.mark.parametrize("senders", [1, 5])
def test_requests_of_other_users_are_answered_while_a_few_send_floods_of_poisonous_ones(senders: int) -> None:
    nexus = MemoryNexus(Clock())
    logic = RaisesOnBadUsers()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    bad = [asked(f"bad{number % senders}") for number in range(1000)]
    outcomes = leadership.advance(2.0, [*bad, asked("good", "r"), *bad, asked("good", "s")])
    assert [reply.reply for outcome in outcomes for reply in outcome.replies] == ["r", "s"]
    assert logic.recovered <= POISONOUS_OF_ALL_MAX


def test_poisonous_events_of_very_many_senders_in_one_tick_cost_few_recoveries() -> None:
    nexus = MemoryNexus(Clock())
    logic = RaisesOnBadUsers()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    leadership.advance(2.0, [asked(f"bad{number}") for number in range(1000)])
    assert leadership.poisonous == POISONOUS_OF_ALL_MAX
    assert logic.recovered <= POISONOUS_OF_ALL_MAX + 1
    assert leadership.dropped == 1000 - POISONOUS_OF_ALL_MAX


def test_logic_that_cannot_recover_stops_leading() -> None:
    class CannotRecover(Tally):
        def recover(self, now_s: float) -> None:
            raise RuntimeError("cannot")

    nexus = MemoryNexus(Clock())
    leadership = Leadership(CannotRecover(), nexus, elect(nexus))
    leadership.begin(1.0)
    leadership.advance(2.0, [Add(name="bad", by=-1)])
    with pytest.raises(NotLeader, match="cannot recover"):
        leadership.advance(3.0, [])


class RaisesOnEveryTimer(Tally):
    """Raises whenever its timer is due; recovery makes the timer due again."""

    def __init__(self) -> None:
        super().__init__()
        self._is_fresh = True

    def recover(self, now_s: float) -> None:
        super().recover(now_s)
        self._is_fresh = True

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        if not self._is_fresh and not events:
            raise RuntimeError("the timer")
        self._is_fresh = False
        return msgspec.structs.replace(super().step(now_s, events), wake_s=now_s)


def test_timer_that_always_makes_the_step_raise_is_tried_ever_more_rarely_while_events_take_effect() -> None:
    nexus = MemoryNexus(Clock())
    logic = RaisesOnEveryTimer()
    leadership = Leadership(logic, nexus, elect(nexus))
    leadership.begin(1.0)
    now_s = 1.0
    steps = 0
    while now_s < 61.0:
        wake_s = leadership.advance(now_s, [])[-1].wake_s
        assert wake_s is not None
        now_s = max(wake_s, now_s + 0.005)
        steps += 1
    assert 2 * 60 / FAILURE_WAIT_S_MAX <= steps < 40
    leadership.advance(now_s, [Add(name="x")])
    assert stored(nexus) == {"x": 1}


def test_poisonous_event_does_not_delay_the_timers_of_the_others() -> None:
    nexus = MemoryNexus(Clock())
    leadership = Leadership(Tally(), nexus, elect(nexus))
    leadership.begin(1.0)
    for second in range(1, 20):
        assert leadership.advance(float(second), [Add(name="bad", by=-1)])[-1].wake_s == second


def test_leader_with_other_settings_than_the_last_one_says_so(caplog: pytest.LogCaptureFixture) -> None:
    nexus = MemoryNexus(Clock())
    for owner, dead in (("a", "30s"), ("b", "30s"), ("b", "90s")):
        grant = elect(nexus, owner)
        leadership = Leadership(
            Tally(), nexus, grant, settings={"--dead-after": dead, f"--only-{owner}": "1"}
        )
        with caplog.at_level(logging.WARNING):
            leadership.begin(1.0)
        leadership.advance(2.0, [Add(name="x")])
        nexus.release(grant)
        assert ("setting=--dead-after last_leader=30s own=90s" in caplog.text) == (dead == "90s")
    assert "--only" not in caplog.text
