"""Several agents on one machine, each with its own name, state, cgroup root and ports."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from galaxy.cli.local import leftovers
from tests.support.waiting import until

from .conftest import GALAXY, Cluster, job_file, leftovers_of


@pytest.fixture(scope="module")
def two_agents(new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    """A cluster with two agents."""
    own = new_cluster()
    own.up("--no-web", "--agents", "2")
    yield own
    own.down()


def test_four_replicas_with_at_most_two_per_host_are_placed_two_and_two(
    two_agents: Cluster, tmp_path: Path
) -> None:
    agents = two_agents.agents()
    assert len({agent.agent for agent in agents}) == 2
    path = job_file(tmp_path, "spread", deploy={"replica": 4, "max_per_host": 2})
    two_agents.run("job", "run", str(path))
    pods = two_agents.pods("spread")
    assert sorted(Counter(pod.agent for pod in pods).values()) == [2, 2]
    roots = {agent["name"]: agent["cgroup_root"] for agent in two_agents.plan()["agents"]}
    for pod in pods:
        assert f"/{roots[pod.agent]}/" in Path(f"/proc/{pod.pid}/cgroup").read_text()
        assert (two_agents.folder / "agent" / pod.agent / "c").is_dir()
    fifth = job_file(tmp_path, "wide", deploy={"replica": 5, "max_per_host": 2})
    done = two_agents.run("job", "run", "--timeout", "3s", str(fifth), status=2)
    assert "2 max-per-host" in done.stderr
    two_agents.run("job", "remove", "--yes", "spread")
    two_agents.run("job", "remove", "--yes", "wide")


def test_removal_that_is_refused_leaves_every_agent_its_login(two_agents: Cluster) -> None:
    first = two_agents.agents()[0].agent
    beat_s = two_agents.agents()[0].beat_s
    done = two_agents.run("agent", "remove", "--force", "--yes", first, "nobody", status=1)
    assert "nothing was changed" in done.stderr
    until("it sends heartbeats again", lambda: two_agents.agents()[0].beat_s > beat_s + 10)
    assert [agent.state for agent in two_agents.agents()] == ["alive", "alive"]


def test_another_agent_joins_with_one_command_and_its_programs_run_on_when_it_stops(
    two_agents: Cluster, new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    other = new_cluster()
    state, root = other.folder / "h3", f"galaxy-h3-{os.getpid()}"
    url = two_agents.run("redis", "url", "agent", "--host", "h3").stdout.strip()
    command = [
        *GALAXY, "agent", "--redis", url, "--pool", "side", "--name", "h3",
        "--state", str(state), "--cgroup-root", root, "--ports", "19000-19099",
    ]  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=two_agents.environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def alive() -> list[str]:
        return [agent.info.pool for agent in two_agents.agents() if agent.state == "alive"]

    joined = start()
    try:
        until("all agents are alive", lambda: Counter(alive()) == {"main": 2, "side": 1})
        path = job_file(tmp_path, "beside", deploy={"replica": 2, "pools": ["side"]})
        two_agents.run("job", "run", str(path))
        pods = two_agents.pods("beside")
        assert {pod.agent for pod in pods} == {"h3"}
        joined.terminate()
        assert joined.wait(60) == 0
        assert all(f"/{root}/" in Path(f"/proc/{pod.pid}/cgroup").read_text() for pod in pods)
        joined = start()
        until("all agents are alive again", lambda: Counter(alive()) == {"main": 2, "side": 1})
        two_agents.run("job", "remove", "--yes", "beside")
        until("its containers are gone", lambda: not any(Path(f"/proc/{pod.pid}").exists() for pod in pods))
    finally:
        joined.terminate()
        joined.wait(60)
        leftovers.remove(other.folder, [root], timeout_s=30)
    assert leftovers_of(other.folder, [root]) == []
