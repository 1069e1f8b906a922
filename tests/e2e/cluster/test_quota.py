"""Quotas of a real cluster: a refusal gives numbers and accepts no part of a job; quotas can be lifted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.conftest import Cluster, job_file
from tests.e2e.cluster.test_users import as_user
from tests.support.waiting import until

EVERYTHING = ("submit_job", "update_job", "remove_job", "list_job")


@pytest.fixture
def quo(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Add a user with every authority in pool main; return a function that runs commands as that user."""
    token = cluster.run("user", "add", "quo").stdout.strip()
    cluster.run("user", "grant", "quo", "main", "add", *EVERYTHING)
    yield lambda *arguments, status=0: as_user(cluster, token, *arguments, status=status)
    cluster.run("user", "remove", "--yes", "quo")


def file(folder: Path, name: str, replica: int) -> str:
    return str(job_file(folder, name, deploy={"replica": replica, "pools": ["main"], "stop_timeout": "1s"}))


def test_user_gets_what_the_quota_leaves_and_a_refusal_says_what_would_fit(
    cluster: Cluster, quo: Callable[..., str], jobs: Callable[[str], None], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        jobs(name)
    cluster.run("quota", "set", "quo", "memory=192M", "containers=4")
    quo("quota", "set", "quo", "memory=none", status=3)
    quo("job", "run", file(tmp_path, "first", 2))
    output = quo("job", "run", file(tmp_path, "second", 2), status=3)
    assert 'cannot run "second": memory quota of user "quo" exceeded' in output
    assert "memory: asks 128 MiB (2 x 64 MiB); 64 MiB of 192 MiB left" in output
    assert "lower deploy.replica to 1" in output
    assert "second" not in quo("job", "list")
    quo("job", "run", file(tmp_path, "second", 1))
    output = quo("job", "update", file(tmp_path, "first", 3), status=3)
    assert 'cannot update "first"' in output
    rows = [line.split() for line in quo("quota", "show", "quo").splitlines()]
    assert ["quo", "*", "memory", "192", "MiB", "192", "MiB", "192", "MiB", "-"] in rows
    assert ["quo", "*", "containers", "3", "3", "4", "-"] in rows
    assert ["quo", "*", "cpu", "300m", "300m", "none", "-"] in rows

    cluster.run("quota", "set", "quo", "containers=1")
    assert all(pod.state == "running" for pod in cluster.pods("first"))
    quo("job", "update", file(tmp_path, "first", 1))
    quo("job", "remove", "--yes", "second")
    cluster.run("quota", "set", "quo", "main", "containers=2")
    cluster.run("quota", "set", "quo", "memory=none", "containers=none")

    def left() -> list[tuple[str, int, int]]:
        rows = cluster.json("quota", "show", "quo")
        return [(one["pool"], one["used"]["containers"], one["wanted"]["containers"]) for one in rows]

    until("one container is left", lambda: left() == [("main", 1, 1)])
    quo("job", "update", file(tmp_path, "first", 2))


def test_new_job_waits_for_the_containers_of_a_removed_one_with_reason_quota(
    cluster: Cluster, quo: Callable[..., str], jobs: Callable[[str], None], tmp_path: Path
) -> None:
    for name in ("slow", "next"):
        jobs(name)
    cluster.run("quota", "set", "quo", "containers=1")
    stubborn = {"start": "trap '' TERM; while :; do sleep 1; done"}
    deploy = {"replica": 1, "pools": ["main"], "stop_timeout": "100s"}
    quo("job", "run", str(job_file(tmp_path, "slow", task=stubborn, deploy=deploy)))
    (slow,) = cluster.pods("slow")
    quo("job", "remove", "--yes", "--detach", "slow")
    quo("job", "run", "--detach", file(tmp_path, "next", 1))

    def reason() -> str:
        (pod,) = cluster.pods("next")
        return pod.reason.code if pod.reason else pod.state

    until("it waits for the quota", lambda: reason() == "quota")
    assert "containers quota of user" in quo("job", "show", "next")
    os.kill(slow.pid, signal.SIGKILL)  # It would end by itself, but only after its stop timeout.
    until("it runs", lambda: reason() == "running")
