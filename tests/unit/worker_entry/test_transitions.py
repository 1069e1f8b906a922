"""The transition table of task states: every (state, event) pair against expectations written by hand."""

from __future__ import annotations

import pytest

from galaxy.model.messages.pod import TaskState
from galaxy.worker_entry.logic import events
from galaxy.worker_entry.logic.records import SupervisedTask
from galaxy.worker_entry.logic.transitions import TRANSITIONS, move

INVALID = "-"
COLUMNS = (
    "DeployBegan", "DeployResumed", "PackagesPlaced", "Restarted", "Crashed", "Completed", "GaveUp",
    "StopBegan", "TaskEmptied",
)  # fmt: skip
EXPECTED = {
    #             began     resumed   placed  restart crashed complete gaveup stop     emptied
    "pending":   "deploying -         -       -       -       -        failed stopping -",
    "deploying": "deploying -         running -       -       -        failed stopping -",
    "running":   "deploying -         -       -       backoff finished failed stopping -",
    "backoff":   "deploying -         -       running -       -        -      stopping -",
    "stopping":  "-         -         -       -       -       -        -      stopping stopped",
    "stopped":   "deploying deploying -       -       -       -        failed stopping -",
    "finished":  "deploying -         -       -       -       -        -      stopping -",
    "failed":    "deploying -         -       -       -       -        -      stopping -",
}  # fmt: skip
PAIRS = [
    (state, event, after)
    for state, row in EXPECTED.items()
    for event, after in zip(COLUMNS, row.split(), strict=True)
]


@pytest.mark.parametrize(("state", "event", "after"), PAIRS)
def test_event_moves_a_task_to_the_expected_state_or_is_invalid(spec, state, event, after):
    task = SupervisedTask(spec=spec(), state=TaskState(state))
    if after == INVALID:
        with pytest.raises(AssertionError, match="not valid"):
            move(task, getattr(events, event))
    else:
        assert move(task, getattr(events, event)).state == after


def test_expectations_cover_every_state_and_every_event_of_the_table():
    assert set(EXPECTED) == {str(state) for state in TaskState}
    assert {event.__name__ for _, event in TRANSITIONS.pairs()} == set(COLUMNS)
    assert len(PAIRS) == len(TaskState) * len(COLUMNS)
