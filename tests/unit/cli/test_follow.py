"""The lines that are printed while a job is followed, and the tables of a job."""

from __future__ import annotations

import pytest

from galaxy.cli.job.follow import Progress, is_stuck, settled_line, waiting_for
from galaxy.cli.tables import event_lines, job_rows, pod_rows, reason_lines, task_rows, trouble_lines
from galaxy.model.api.views import TaskView
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit
from galaxy.model.messages.trace import TraceEvent
from tests.unit.cli.views import pod, view


def lines_of(progress: Progress, *views: object) -> list[list[str]]:
    return [list(progress.changes(one)) for one in views]  # type: ignore[arg-type]


def test_each_change_of_a_pod_is_one_line_and_no_change_is_no_line() -> None:
    before = view(pod(0, "deploying"), pod(1))
    after = view(pod(0), pod(1))
    printed = lines_of(Progress(0.0), before, before, after)
    assert printed == [
        ["web-1.0 deploying on h1", "web-1.1 running healthy on h1"],
        [],
        ["web-1.0 running healthy on h1"],
    ]


def test_first_states_of_known_pods_are_not_printed() -> None:
    progress = Progress(0.0, known=True)
    assert lines_of(progress, view(pod(0)), view(pod(0, "stopping"))) == [[], ["web-1.0 stopping on h1"]]


def test_pod_that_is_removed_is_printed_once_as_gone() -> None:
    assert lines_of(Progress(0.0, known=True), view(pod(0), pod(1)), view(pod(0)), view(pod(0)))[1:] == [
        ["web-1.1 gone"],
        [],
    ]


def test_line_of_a_pod_has_restarts_and_reason() -> None:
    reason = Reason(code="exited", message="exit code 9")
    (line,) = lines_of(
        Progress(0.0), view(pod(0, "backoff", restarts=3, revision_restarts=2, reason=reason))
    )[0]
    assert line == "web-1.0 backoff on h1 restarted 2 times: exit code 9"


def test_line_of_a_pending_pod_does_not_name_the_host_of_its_last_container() -> None:
    ((line,),) = lines_of(Progress(0.0), view(pod(0, "pending", agent="h1")))
    assert line == "web-1.0 pending"


def test_waiting_line_names_the_first_pods() -> None:
    late = view(*(pod(n, "deploying") for n in range(5)), pod(5))
    assert waiting_for(late) == (
        "waiting for 5 of 6 pods: web-1.0 deploying, web-1.1 deploying, web-1.2 deploying and 2 more"
    )


def test_waiting_line_names_a_healthy_pod_of_the_old_revision() -> None:
    assert "web-1.0" in waiting_for(view(pod(0), pod(1, revision=2), revision=2))


@pytest.mark.parametrize(
    ("pods", "state", "expected"),
    [
        ((pod(0), pod(1, "failed")), "degraded", True),
        ((pod(0), pod(1, "backoff")), "stalled", True),
        ((pod(0), pod(1)), "running", False),
        ((pod(0), pod(1, "backoff")), "running", False),
        # The others have failed under the old revision, and wait for their turn.
        ((pod(0, revision=2), pod(1, "failed"), pod(2, "failed")), "updating", False),
        # They are about to be deployed again, or stopped.
        ((pod(0, "failed"), pod(1, "finished")), "pending", False),
        ((pod(0), pod(1, "failed")), "stopping", False),
    ],
)
def test_job_is_stuck_when_its_state_says_that_pods_fail(pods: tuple, state: str, expected: bool) -> None:
    assert is_stuck(view(*pods, state=state, revision=2)) is expected


def test_line_of_a_settled_job_depends_on_its_state() -> None:
    assert settled_line(view(pod(0), settled=True)) == "web-1 revision 1: 1 of 1 pods healthy"
    assert "it keeps 1 container" in settled_line(view(pod(0, "stopped"), state="stopped", settled=True))


def test_placement_is_explained_with_counts_and_nearest_hosts() -> None:
    reason = Reason(
        code="placement", message="no room", counts={"cpu": 2, "pool": 5}, nearest=("h1 lacks 2",)
    )
    assert reason_lines(reason) == ["no room", "agents: 5 pool, 2 cpu", "nearest: h1 lacks 2"]


def test_counts_of_a_reason_other_than_placement_are_not_shown_as_agents() -> None:
    reason = Reason(code="port-in-use", message="port 8080 is in use", counts={"port": 8080})
    assert reason_lines(reason) == ["port 8080 is in use"]


def test_reason_of_many_pods_is_printed_once() -> None:
    reason = Reason(code="placement", message="no room")
    own = Reason(code="placement", message="2 of 2 pods pending: web-1.0: no room")
    lines = trouble_lines(
        view(pod(0, "pending", reason=reason), pod(1, "pending", reason=reason), reason=own)
    )
    assert lines == ["web-1.0 and 1 more: no room"]


def test_reason_of_the_job_alone_is_printed_first() -> None:
    own = Reason(code="stalled", message="rollout stalled")
    assert trouble_lines(view(pod(0), reason=own)) == ["rollout stalled"]


def test_oom_kill_and_restarts_are_in_the_table_of_programs() -> None:
    task = TaskView(name="main", state="running", restarts=3, last_exit=Exit(at_s=1.0, signal=9, oom=True))
    titles, (row,) = task_rows([pod(0, tasks=(task,))], 10.0)
    cells = dict(zip(titles, row, strict=True))
    assert cells["RESTARTS"] == "3"
    assert "OOM-killed" in cells["LAST EXIT"]


def test_every_row_has_a_cell_for_every_title() -> None:
    sample = view(pod(0, ports={"http": 1}))
    for titles, rows in (
        job_rows([sample.summary], 1.0),
        job_rows([sample.summary], 1.0, wide=True),
        pod_rows(sample.pods, 1.0),
        pod_rows(sample.pods, 1.0, wide=True),
    ):
        assert all(len(row) == len(titles) for row in rows)


def test_last_events_are_shown_oldest_first() -> None:
    events = tuple(TraceEvent(kind=f"k{n}", subject="web-1", at_s=float(n)) for n in range(5))
    assert [line.split()[3] for line in event_lines(view(pod(0), events=events), 10.0, 2)] == ["k3", "k4"]
