"""A command that cannot succeed prints the reason and exits with the right code within five seconds."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until, within_limit

from .conftest import Cluster, job_file

FIVE_MISTAKES = """\
name: Bad_Name
type: servise
deploy:
  replcia: 2
pod:
  tasks:
    - name: web
      cpu: lots
      memory: 64M
      start: exec sleep 1000
      helth: tcp
"""


@pytest.fixture(autouse=True)
def within_five_seconds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that each command takes under five seconds, not counting the start of Python."""
    run = cluster.run

    def timed(*arguments: str, status: int | None = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        results: list[subprocess.CompletedProcess[str]] = []

        def once() -> float:
            began_s = time.monotonic()
            run("context", "list")
            started_s = time.monotonic()
            results.append(run(*arguments, status=status, **more))
            return time.monotonic() - started_s - (started_s - began_s)

        if status is None or "--timeout" in arguments:
            return run(*arguments, status=status, **more)
        within_limit(" ".join(arguments), 5.0, once)
        return results[-1]

    monkeypatch.setattr(cluster, "run", timed)


def test_five_mistakes_are_all_reported_with_line_and_near_miss(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(FIVE_MISTAKES)
    for command in (["job", "validate"], ["job", "run"]):
        errors = cluster.run(*command, str(path), status=64).stderr
        for line, field in ((1, "name"), (2, "type"), (4, "replcia"), (8, "cpu"), (11, "helth")):
            assert re.search(rf"bad\.yaml:{line}\b.*{field}", errors), (line, field, errors)
        assert "replica" in errors
        assert "health" in errors


@pytest.mark.parametrize("command", ["show", "stop", "remove"])
def test_command_about_an_unknown_job_names_it_in_its_first_line(cluster: Cluster, command: str) -> None:
    done = cluster.run("job", command, "no-such-job", status=1)
    assert "no-such-job" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


def test_several_jobs_are_each_answered_for_and_the_worst_exit_code_is_returned(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    for name in ("multi-a", "multi-b"):
        jobs(name)
        cluster.run("job", "run", "--quiet", str(job_file(tmp_path, name)))
    done = cluster.run("job", "stop", "--quiet", "multi-a", "no-such-job", "multi-b", status=1)
    assert "no-such-job" in done.stderr and done.stdout.count("stopped") == 2
    assert cluster.run("job", "start", "--quiet", "multi-a", "multi-b").stdout.count("healthy") == 2
    # Without a terminal to ask on, nothing is removed, nor if one of the names is unknown.
    cluster.run("job", "remove", "multi-a", "multi-b", status=64)
    cluster.run("job", "remove", "multi-a", "no-such-job", status=1)
    assert len(cluster.pods("multi-a")) == 1
    assert cluster.run("job", "remove", "--yes", "multi-a", "multi-b").stdout.count("removed") == 2


def test_name_that_is_taken_is_refused_with_3_or_the_chosen_code(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("taken")
    path = str(job_file(tmp_path, "taken", type="batch"))
    cluster.run("job", "run", "--detach", path)
    for extra, code in (((), 3), (("--conflict-exit-code", "75"), 75)):
        done = cluster.run("job", "run", "--wait", *extra, path, status=code)
        assert 'cannot run "taken": a job of this name is' in done.stderr


def test_command_that_changes_says_which_cluster_it_reached_unless_that_is_obvious(
    cluster: Cluster, tmp_path: Path
) -> None:
    where = f"cluster in {cluster.folder}, named by GALAXY_DIR"
    value = tmp_path / "value"
    value.write_text("x")
    change = ("secret", "set", "which-cluster", "--from-file", str(value))
    assert where not in cluster.run(*change).stderr
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cluster.run("context", "add", name, "--dir", str(tmp_path / name), **environ)
    assert cluster.run(*change, **environ).stderr.startswith(f"{where}\n")
    assert where not in cluster.run("secret", "list", "-o", "json", **environ).stderr
    cluster.run("secret", "remove", "--yes", "which-cluster")


def test_command_for_a_dead_cluster_names_its_address(cluster: Cluster) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
        port = probe.getsockname()[1]
        done = cluster.run("job", "list", "--redis", f"redis://127.0.0.1:{port}/0", status=1)
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_command_for_a_folder_without_a_cluster_says_so(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run("status", "--dir", str(tmp_path), status=1)
    assert "no cluster runs in" in done.stderr


def test_command_with_a_wrong_password_is_refused(cluster: Cluster) -> None:
    url = cluster.file()["url"]
    wrong = re.sub(r":[^:@/]+@", ":wrong@", url)
    done = cluster.run("job", "list", "--redis", wrong, status=3)
    assert "password" in done.stderr
    assert "wrong" not in done.stderr.replace("wrong password", "")


def test_job_that_fits_nowhere_says_why_with_counts_and_the_nearest_hosts(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("huge")
    path = job_file(tmp_path, "huge", task={"memory": "900G"})
    done = cluster.run("job", "run", "--timeout", "5s", str(path), status=2)
    reason = until("a reason", lambda: cluster.pods("huge")[0].reason)
    assert reason.counts == {"memory": 1}
    agent = cluster.agents()[0].agent
    assert any(agent in nearest for nearest in reason.nearest)
    assert "memory" in done.stdout + done.stderr
