"""``galaxy logs``: order of time, runs, times, and pods that come later."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import until

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
