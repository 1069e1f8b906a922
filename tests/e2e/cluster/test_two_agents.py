"""Two agents on one machine: own names, own state, own cgroup roots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .conftest import Cluster, job_file


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
