"""Two agents on one machine: own names, own state, own cgroup roots."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from galaxy.cli.local import leftovers
from tests.support.waiting import until

from .conftest import GALAXY, Cluster, job_file, traces


def test_four_replicas_with_two_a_host_land_two_and_two(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web", "--agents", "2")
    agents = own.agents()
    assert len({agent.agent for agent in agents}) == 2
    path = job_file(tmp_path, "spread", deploy={"replica": 4, "max_per_host": 2})
    own.run("job", "run", str(path))
    pods = own.pods("spread")
    assert sorted(Counter(pod.agent for pod in pods).values()) == [2, 2]
    roots = {agent["name"]: agent["cgroup_root"] for agent in own.plan()["agents"]}
    for pod in pods:
        assert f"/{roots[pod.agent]}/" in Path(f"/proc/{pod.pid}/cgroup").read_text()
        assert (own.folder / "agent" / pod.agent / "c").is_dir()
    fifth = job_file(tmp_path, "wide", deploy={"replica": 5, "max_per_host": 2})
    said = own.run("job", "run", "--timeout", "3s", str(fifth), status=2)
    assert "2 max-per-host" in said.stderr
    own.down()


def test_second_agent_joins_with_one_command_and_its_programs_outlive_it(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own, other = new_cluster(), new_cluster()
    own.up("--no-web")
    state, root = other.folder / "h2", f"galaxy-h2-{os.getpid()}"
    url = own.run("redis", "url", "agent", "--host", "h2").stdout.strip()
    command = [
        *GALAXY, "agent", "--redis", url, "--pool", "side", "--name", "h2",
        "--state", str(state), "--cgroup-root", root, "--ports", "19000-19099",
    ]  # fmt: skip
    second = subprocess.Popen(command, env=own.environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("both agents", lambda: {agent.info.pool for agent in own.agents()} == {"main", "side"})
        path = job_file(tmp_path, "beside", deploy={"replica": 2, "pools": ["side"]})
        own.run("job", "run", str(path))
        pods = own.pods("beside")
        assert {pod.agent for pod in pods} == {"h2"}
        second.terminate()
        assert second.wait(60) == 0
        assert all(f"/{root}/" in Path(f"/proc/{pod.pid}/cgroup").read_text() for pod in pods)
        second = subprocess.Popen(
            command, env=own.environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until("the agent again", lambda: own.agents()[0].state == own.agents()[1].state == "alive")
        own.run("job", "remove", "--yes", "beside")
        until("its containers gone", lambda: not any(Path(f"/proc/{pod.pid}").exists() for pod in pods))
    finally:
        second.terminate()
        second.wait(60)
        leftovers.remove(other.folder, [root], timeout_s=30)
    assert traces(other.folder, [root]) == []
    own.down()
