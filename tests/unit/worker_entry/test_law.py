"""The table of task states: every pair, legal or not."""

from __future__ import annotations

import itertools

import pytest

from galaxy.model.pod import TaskState
from galaxy.worker_entry.logic.law import LAW, move
from galaxy.worker_entry.logic.nouns import (
    Begun,
    Completed,
    Crashed,
    Emptied,
    GaveUp,
    Halted,
    Placed,
    Restarted,
    Resumed,
    Task,
)  # fmt: skip

EVENTS = (Begun, Completed, Crashed, Emptied, GaveUp, Halted, Placed, Restarted, Resumed)
PAIRS = list(itertools.product(TaskState, EVENTS))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_move_follows_the_table_and_refuses_what_it_does_not_hold(spec, state, event):
    task = Task(spec=spec(), state=state)
    after = LAW.pairs().get((state, event))
    if after is None:
        with pytest.raises(AssertionError, match="not legal"):
            move(task, event)
    else:
        assert move(task, event).state == after


def test_table_holds_nothing_but_known_states_and_events():
    assert set(LAW.pairs()) <= set(PAIRS)


def test_every_state_is_reached_from_pending_and_can_be_left():
    reached = {TaskState.PENDING}
    for _ in TaskState:
        reached |= {after for (state, _), after in LAW.pairs().items() if state in reached}
    assert reached == set(TaskState)
    assert {state for state, _ in LAW.pairs()} == set(TaskState)


@pytest.mark.parametrize("state", TaskState)
def test_every_state_can_be_told_to_stop(state):
    assert LAW.after(state, Halted) == TaskState.STOPPING


def test_nothing_runs_out_of_finished_or_failed_without_a_new_beginning():
    for state in (TaskState.FINISHED, TaskState.FAILED):
        events = {event for known, event in LAW.pairs() if known == state}
        assert events == {Begun, Halted}
