"""A web service is run, updated, stopped, started and removed."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galaxy.client import Galaxy
from tests.support.waiting import until

from .conftest import Cluster, cgroups_at, hello_job, leftovers_of


def fetch(endpoint: Any, path: str = "/") -> str:
    url = f"http://{endpoint.address}:{endpoint.port}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


class Client(threading.Thread):
    """Polls a service like its users: asks discovery for endpoints and requests a page from each."""

    def __init__(self, folder: Path, service: str) -> None:
        super().__init__(daemon=True)
        self.galaxy = Galaxy(dir=folder)
        self.service = service
        self.done = threading.Event()
        self.answers = 0
        self.failures: list[str] = []
        self.fewest = 99

    def run(self) -> None:
        while not self.done.is_set():
            endpoints = self.galaxy.discover(self.service)
            self.fewest = min(self.fewest, len(endpoints))
            for endpoint in endpoints:
                try:
                    fetch(endpoint)
                    self.answers += 1
                except OSError as error:
                    self.failures.append(f"{endpoint}: {error}")
            self.done.wait(0.02)

    def stop(self) -> None:
        self.done.set()
        self.join(20)
        self.galaxy.close()


def containers(pods: list[Any]) -> list[tuple[Any, ...]]:
    """Return what identifies each pod's container: id, incarnation, PID 1 and ports."""
    return sorted((p.container, p.incarnation, p.pid, str(p.ports)) for p in pods)


def test_web_service_is_run_updated_in_place_stopped_started_and_removed(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("web")
    cluster.run("job", "run", str(hello_job(tmp_path, "web", "1.0.0")))
    endpoints = cluster.endpoints("web")
    assert len(endpoints) == 3
    assert {endpoint.state for endpoint in endpoints} == {"healthy"}
    assert all('"version": "1.0.0"' in fetch(endpoint) for endpoint in endpoints)
    before = cluster.pods("web")

    client = Client(cluster.folder, "web")
    client.start()
    try:
        cluster.run("job", "update", str(hello_job(tmp_path, "web", "1.1.0")), timeout_s=90)
    finally:
        client.stop()
    assert client.failures == []
    assert client.answers > 50
    assert client.fewest >= 2, "with step 1 more than one pod was withdrawn at a time"
    assert containers(cluster.pods("web")) == containers(before)
    endpoints = cluster.endpoints("web")
    assert len(endpoints) == 3
    assert all('"version": "1.1.0"' in fetch(endpoint) for endpoint in endpoints)

    cluster.run("job", "stop", "web")
    stopped = until(
        "all pods stopped",
        lambda: all(p.state == "stopped" for p in cluster.pods("web")) and cluster.pods("web"),
    )
    assert containers(stopped) == containers(before), "a container was replaced"
    assert cluster.run("discover", "web", "-o", "json", status=None).stdout.strip() in ("[]", "")
    assert all(Path(f"/proc/{pod.pid}").exists() for pod in stopped)

    cluster.run("job", "start", "web")
    until("three endpoints again", lambda: len(cluster.endpoints("web")) == 3)
    assert containers(cluster.pods("web")) == containers(before)

    job = cluster.show("web").summary.job
    cluster.run("job", "remove", "--yes", "web")
    left: list[str] = []

    def nothing_left() -> bool:
        left[:] = left_of(cluster, job, before)
        return not left

    with contextlib.suppress(AssertionError):
        until("nothing left of it", nothing_left)
    assert left == []


def left_of(cluster: Cluster, job: str, pods: list[Any]) -> list[str]:
    """Return what is left of a removed job on this host and in Redis, except its history."""
    roots = [agent["cgroup_root"] for agent in cluster.plan()["agents"]]
    left = [f"process {pod.pid}" for pod in pods if Path(f"/proc/{pod.pid}").exists()]
    left += [trace for trace in leftovers_of(cluster.folder, roots) if job in trace]
    for root in roots:
        left += [f"cgroup {path}" for path in cgroups_at(f"{root}/{job}*")]
    listening = Path("/proc/net/tcp").read_text()
    for pod in pods:
        left += [
            f"port {port}" for port in pod.ports.values() if f":{port:04X} 00000000:0000 0A" in listening
        ]
    state = cluster.folder / "agent"
    left += [str(path) for path in state.glob("*/c/*") if path.name.startswith(job)]
    return left + redis_keys_of(cluster, job)


def redis_keys_of(cluster: Cluster, job: str) -> list[str]:
    """Return keys and hash fields that name the job, except in the trace and the history."""
    import redis

    client = redis.Redis.from_url(cluster.admin_url(), decode_responses=True)
    try:
        left = []
        for key in client.scan_iter(count=1000):
            # History: events, finished jobs, and ended groups, which identify late orders.
            if any(word in key for word in ("trace", "history", "table:ended")):
                continue
            if job in key:
                left.append(f"key {key}")
            elif client.type(key) == "hash":
                left += [f"field {key} {field}" for field in client.hkeys(key) if field.startswith(job)]
        return left
    finally:
        client.close()


def test_update_after_an_update_reaches_every_pod(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("again")
    cluster.run("job", "run", str(hello_job(tmp_path, "again", "1.0.0", replica=2, drain="0s")))
    began = time.monotonic()
    cluster.run("job", "update", str(hello_job(tmp_path, "again", "2.0.0", replica=2, drain="0s")))
    cluster.run("job", "update", str(hello_job(tmp_path, "again", "3.0.0", replica=2, drain="0s")))
    assert time.monotonic() - began < 60
    assert all('"version": "3.0.0"' in fetch(endpoint) for endpoint in cluster.endpoints("again"))
