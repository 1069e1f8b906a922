"""``galaxy logs``: order of time, runs, times, and pods that come later."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from galaxy.errors import UsageError
from galaxy.model.api.sessions import ExecIn
from tests.support.waiting import until, within_limit

from .conftest import GALAXY, Cluster, job_file

SAY = "pause() { sleep 0.05; }; "


def test_both_streams_and_all_runs_are_in_the_order_of_time(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("order")
    restart = {"policy": "on-failure", "attempts": 1, "delay": "100ms"}
    start = SAY + (
        "echo out 1; pause; echo err 1 >&2; pause; echo out 2; pause; "
        "if [ -e seen ]; then echo up; exec sleep 1000; fi; touch seen; echo boom >&2; exit 3"
    )
    path = job_file(tmp_path, "order", task={"start": start, "restart": restart})
    cluster.run("job", "run", "--quiet", str(path), status=None)
    until("the second run", lambda: "up\n" in cluster.run("logs", "order").stdout)
    lines = cluster.run("logs", "order").stdout.splitlines()
    pod = cluster.pods("order")[0].pod
    assert re.fullmatch(rf"--- {pod} main: revision 1, restart 1, 20.* ---", lines.pop(4))
    assert lines == ["out 1", "err 1", "out 2", "boom", "out 1", "err 1", "out 2", "up"]
    assert cluster.run("logs", "--previous", "order").stdout.splitlines() == lines[:4]
    assert cluster.run("logs", "--stream", "stderr", "--no-prefix", "order").stdout.split("\n")[:2] == [
        "err 1",
        "boom",
    ]
    stamped = cluster.run("logs", "--timestamps", "--no-prefix", "-n", "3", "order").stdout.splitlines()
    times = [line.split(" ", 1)[0] for line in stamped]
    assert [line.split(" ", 1)[1] for line in stamped] == ["err 1", "out 2", "up"]
    assert times == sorted(times) and len(set(times)) == 3
    since = times[1].removesuffix("Z") + "+00:00"
    assert cluster.run("logs", "--since", since, "order").stdout == "out 2\nup\n"


def test_following_waits_for_the_first_pod_picks_up_new_ones_and_ends_with_the_job(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("grow")
    start = "echo pod $GALAXY_POD_INDEX; exec sleep 1000"
    one = job_file(tmp_path, "grow", task={"start": start, "cpu": "10m"}, deploy={"replica": 1})
    cluster.run("job", "run", "--detach", str(one))
    output = tmp_path / "followed"
    with output.open("wb") as file:
        follower = subprocess.Popen(
            [*GALAXY, "logs", "-f", "grow"], env=cluster.environ, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            until("the first pod's output", lambda: "pod 0" in output.read_text())
            two = job_file(tmp_path, "grow", task={"start": start, "cpu": "10m"}, deploy={"replica": 2})
            cluster.run("job", "update", str(two))
            until("the second pod's output", lambda: "pod 1" in output.read_text())
            assert output.read_text().count("pod 0") == 1
            cluster.run("job", "remove", "--yes", "grow")
            assert follower.wait(60) == 0
        finally:
            follower.kill()
            follower.wait()


def test_commands_end_with_their_client_unless_detached(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("side")
    path = job_file(tmp_path, "side", task={"start": "exec sleep 1000"})
    cluster.run("job", "run", "--quiet", str(path))

    def running(number: int) -> bool:
        return processes(f"sleep\x00{number}\x00")

    def end_after_kill_s(*command: str) -> float:
        with subprocess.Popen(
            [*GALAXY, "exec", "side", "--", *command], env=cluster.environ, stdout=subprocess.PIPE
        ) as client:
            until("the command runs", lambda: running(7001))
            client.kill()
            client.wait()
            killed_s = time.monotonic()
            until("it has ended", lambda: not running(7001))
            return time.monotonic() - killed_s

    stubborn = "trap '' TERM HUP; yes & exec sleep 7001"
    within_limit("the command ends", 2.0, lambda: end_after_kill_s("sleep", "7001"))
    within_limit("a stubborn command ends", 2.0, lambda: end_after_kill_s("sh", "-c", stubborn))
    cluster.run("exec", "-d", "side", "--", "sleep", "7002")
    until("the detached command runs", lambda: running(7002))
    assert cluster.run("exec", "side", "--", "sh", "-c", "exit 3", status=3).stdout == ""
    assert running(7002)
    cluster.run("job", "remove", "--yes", "side")
    until("the detached command ended with its job", lambda: not running(7002))


def test_what_is_too_long_is_refused_at_once(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("long")
    path = job_file(tmp_path, "long", task={"start": "exec sleep 1000"})
    cluster.run("job", "run", "--quiet", str(path))
    many = ["x" * 1000] * 300
    refused = cluster.run("exec", "long", "--", "echo", *many, status=64, timeout_s=10)
    assert "the command is too long" in refused.stderr
    refused = cluster.run("job", "run", "--key", "k" * 1000, str(path), status=64, timeout_s=10)
    assert "256 are allowed" in refused.stderr
    with cluster.sdk() as galaxy:  # A client that does not check is answered as well.
        asked = ExecIn(pod="long", argv=("echo", *many))
        with pytest.raises(UsageError, match="the command is too long"):
            galaxy._ask(asked)


def processes(command: str) -> bool:
    """Return whether a process with this beginning of a command line runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(command.encode()):
                return True
    return False
