"""What is said of a job that is not followed any more, the exit code, and how tables count its pods."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.cli.job.follow import most_troubled, print_outcome, settled_line
from galaxy.cli.job.show import notes_on, pods_line
from galaxy.cli.tables import healthy_text, pod_rows, restarts_text
from galaxy.errors import DONE, FAILED, NOT_ALL_RUNNING
from galaxy.model.api.jobs import JobList
from galaxy.model.api.views import JobView, PodView
from galaxy.model.messages.container import Reason
from tests.unit.cli.views import pod, view

NO_CLUSTER: Any = None
"""Pods without an agent have no log, so that nothing is asked of a cluster."""


def batch(*states: str, state: str, settled: bool = True, **fields: Any) -> JobView:
    pods = [pod(number, one, agent="") for number, one in enumerate(states)]
    return view(*pods, state=state, type="batch", settled=settled, **fields)


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (batch("finished", state="finished"), DONE),
        (batch("running", "finished", state="running"), DONE),
        (batch("pending", state="pending", settled=False), NOT_ALL_RUNNING),
        (batch("finished", "failed", state="failed", exit_code=3), FAILED),
        (batch("running", "failed", state="running"), FAILED),
        (view(pod(0, agent=""), settled=True), DONE),
        (view(pod(0, "deploying", agent="")), NOT_ALL_RUNNING),
        (view(pod(0, "backoff", agent=""), state="degraded"), NOT_ALL_RUNNING),
        (view(pod(0, agent=""), state="stalled"), NOT_ALL_RUNNING),
        (view(pod(0, "removed", agent=""), state="removed", settled=True), NOT_ALL_RUNNING),
    ],
)
def test_exit_code_says_what_is_known_of_the_job(seen: JobView, code: int) -> None:
    assert print_outcome(NO_CLUSTER, seen) == code


def test_line_of_a_batch_job_that_runs_says_that_it_has_not_ended() -> None:
    line = settled_line(batch("running", "finished", state="running"))
    assert line == "web-1 runs, and has not ended yet: 1 of 2 pods finished, 1 running"


def test_failed_batch_job_says_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(NO_CLUSTER, batch("finished", "failed", state="failed", exit_code=3))
    assert "1 of 2 pods finished, 1 failed, exit code 3" in capsys.readouterr().err


WHY = Reason(code="exited", message="exit code 1")


@pytest.mark.parametrize(
    ("pods", "index"),
    [
        ((pod(0, "finished"), pod(1, "finished"), pod(2, "failed"), pod(3, "failed")), 2),
        ((pod(0, "deploying"), pod(1, "backoff"), pod(2, "failed")), 2),
        ((pod(0), pod(1, "deploying"), pod(2, "backoff")), 2),
        ((pod(0, "deploying"), pod(1, "deploying", reason=WHY)), 1),
        ((pod(0), pod(1, healthy=False)), 1),
        ((pod(0), pod(1, revision_restarts=6)), 1),
        ((pod(0, "pending", agent=""), pod(1, "stopped"), pod(2, "finished")), None),
    ],
)
def test_log_of_the_most_troubled_pod_is_quoted(pods: tuple[PodView, ...], index: int | None) -> None:
    found = most_troubled(view(*pods))
    assert (found.index if found else None) == index


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (batch("finished", state="finished"), "1/1"),
        (batch("finished", "running", "failed", state="running"), "2/3"),
        (view(pod(0), pod(1, "backoff")), "1/2"),
        (view(pod(0, "removed"), state="removed"), "-"),
        (view(pod(0, "stopped"), state="stopped"), "-"),
    ],
)
def test_finished_pods_count_as_healthy_and_stopped_jobs_have_no_health(seen: JobView, text: str) -> None:
    assert healthy_text(seen.summary) == text


@pytest.mark.parametrize("state", ["finished", "stopped", "removed"])
def test_pod_that_runs_nothing_on_purpose_is_not_called_unhealthy(state: str) -> None:
    titles, (row,) = pod_rows([pod(0, state)], 1.0)
    assert row[titles.index("HEALTHY")] == "-"


def test_pod_that_is_not_measured_yet_shows_no_usage() -> None:
    titles, (new, old) = pod_rows([pod(0), pod(1, memory_bytes=1024)], 1.0)
    cells = [[row[titles.index(title)] for title in ("CPU", "MEMORY")] for row in (new, old)]
    assert cells == [["-", "-"], ["0m", "1 KiB"]]


def test_pending_pod_shows_no_host_of_its_last_container() -> None:
    titles, (row,) = pod_rows([pod(0, "pending", address="10.0.0.1")], 1.0, wide=True)
    assert (row[titles.index("AGENT")], row[titles.index("ADDRESS")]) == ("-", "-")


def test_restarts_are_those_of_the_revision_and_name_earlier_ones() -> None:
    assert restarts_text(pod(0, restarts=6, revision_restarts=6)) == "6"
    assert restarts_text(pod(0, restarts=6, revision_restarts=0)) == "0 (6 before)"


def test_line_of_counts_is_about_finishing_for_a_batch_job() -> None:
    assert pods_line(batch("finished", "failed", state="failed").summary).startswith("1 of 2 finished")
    assert pods_line(view(pod(0)).summary).startswith("1 of 1 healthy, 1 running")
    assert pods_line(view(pod(0, "removed"), state="removed").summary) == "0 of 1 healthy, removed"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (JobList(jobs=()), "no jobs run"),
        (JobList(jobs=(), hidden=2), "none of your jobs runs; --all shows ended ones\n2 jobs of other users"),
        (JobList(jobs=(view(pod(0)).summary,), hidden=1), "1 job of other users not shown"),
    ],
)
def test_list_says_what_it_does_not_show(found: JobList, text: str) -> None:
    assert "\n".join(notes_on(found, every=False)).startswith(text)


def test_list_of_all_that_there_is_needs_no_note() -> None:
    assert notes_on(JobList(jobs=(view(pod(0)).summary,)), every=False) == []
