"""The table of task states: every pair, legal or not."""

from __future__ import annotations

import itertools

import pytest

from galaxy.model.messages.pod import TaskState
from galaxy.worker_entry.logic.events import (
    Begun,
    Completed,
    Crashed,
    Emptied,
    GaveUp,
    Halted,
    PackagesPlaced,
    Restarted,
    Resumed,
)
from galaxy.worker_entry.logic.records import Task
from galaxy.worker_entry.logic.transitions import TRANSITIONS, move

EVENTS = (Begun, Completed, Crashed, Emptied, GaveUp, Halted, PackagesPlaced, Restarted, Resumed)
PAIRS = list(itertools.product(TaskState, EVENTS))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_move_follows_the_table_and_refuses_what_it_does_not_hold(spec, state, event):
    task = Task(spec=spec(), state=state)
    after = TRANSITIONS.pairs().get((state, event))
    if after is None:
        with pytest.raises(AssertionError, match="not legal"):
            move(task, event)
    else:
        assert move(task, event).state == after


def test_table_holds_nothing_but_known_states_and_events():
    assert set(TRANSITIONS.pairs()) <= set(PAIRS)


def test_every_state_is_reached_from_pending_and_can_be_left():
    reached = {TaskState.PENDING}
    for _ in TaskState:
        reached |= {after for (state, _), after in TRANSITIONS.pairs().items() if state in reached}
    assert reached == set(TaskState)
    assert {state for state, _ in TRANSITIONS.pairs()} == set(TaskState)


@pytest.mark.parametrize("state", TaskState)
def test_every_state_can_be_told_to_stop(state):
    assert TRANSITIONS.next_state(state, Halted) == TaskState.STOPPING


def test_nothing_runs_out_of_finished_or_failed_without_a_new_beginning():
    for state in (TaskState.FINISHED, TaskState.FAILED):
        events = {event for known, event in TRANSITIONS.pairs() if known == state}
        assert events == {Begun, Halted}
