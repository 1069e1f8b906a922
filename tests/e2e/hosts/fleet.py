"""A cluster of real processes on simulated hosts, each with its own network link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from galaxy.cli.local import leftovers
from galaxy.client import Galaxy
from galaxy.errors import GalaxyError
from galaxy.model.api.views import AgentView, EndpointView
from galaxy.nexus.nexus import Nexus
from tests.support.netns import Host, Network
from tests.support.redis_server import server_binary
from tests.support.retrying_client import RetryingClient
from tests.support.waiting import until

GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]
AGENTS = ("h1", "h2", "h3", "h4")
SUSPECT_S = 4.0
DEAD_S = 14.0
"""ResMan's options; its defaults of 10 and 30 s would make these tests three times as slow."""
PASSWORD = "s3cret"
COUNTER = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.2; done"
"""A witness program: prints its pid and a growing number five times a second."""


class HostCluster(RetryingClient):
    """Processes on simulated hosts, with their files in one folder. Clients run on ``client_host``."""

    def __init__(self, agents: dict[str, Host], client_host: Host) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="galaxy-hosts-")).resolve()
        self.agents = agents
        self.client_host = client_host
        self.roots = {name: f"galaxy-hosts-{os.getpid()}-{name}" for name in agents}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def url(self, role: str = "client", host: str = "") -> str:
        """Return the Redis URL of a role; ``host`` matters for agents."""

    def _agent(self, name: str) -> None:
        self._part(
            self.agents[name], "agent", "--name", name, "--state", str(self.state(name)),
            "--cgroup-root", self.roots[name], "--package-root", str(self.folder), log=name,
        )  # fmt: skip

    def _part(self, host: Host, part: str, *options: str, log: str = "") -> None:
        url = self.url(part, log if part == "agent" else "")
        self._start(host, log or part, [*GALAXY, part, "--redis", url, *options])

    def _start(self, host: Host, name: str, arguments: list[str]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = host.popen(
                arguments,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> list[str]:
        """Kill every process, remove everything, and return what could not be removed."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(30)
        left = leftovers.remove(self.folder, list(self.roots.values()), timeout_s=30)
        shutil.rmtree(self.folder, ignore_errors=True)
        return list(left.lines())

    def state(self, agent: str) -> Path:
        """Return the state directory of an agent."""
        return self.folder / agent

    @contextmanager
    def sdk(self, timeout_s: float = 5.0, client_host: Host | None = None) -> Iterator[Galaxy]:
        """Connect a client that runs on ``client_host`` (default: the cluster's own client host)."""
        with (client_host or self.client_host).inside(), Galaxy(self.url(), timeout_s=timeout_s) as galaxy:
            yield galaxy

    def endpoints(self, service: str) -> list[EndpointView]:
        """Return what discovery answers."""
        return self.ask(lambda galaxy: galaxy.discover(service))

    def agent_states(self) -> dict[str, str]:
        """Return the state (alive, suspect, dead) of each agent."""

        def listed(galaxy: Galaxy) -> list[AgentView]:
            return galaxy.agents()

        return {agent.agent: agent.state for agent in self.ask(listed)}

    def events(self, subject: str) -> list[str]:
        """Return the kinds of the events in the trace about a job, an agent or the cluster, oldest first."""
        with self.client_host.inside():
            nexus = Nexus.connect(self.url(), name="test")
            try:
                return [event.kind for event in nexus.trace((subject,), limit=500)]
            finally:
                nexus.close()

    def cli(self, *arguments: str, status: int = 0) -> str:
        """Run ``galaxy ARGUMENTS``; return its output."""
        done = self.client_host.run(
            [*GALAXY, *arguments], capture_output=True, text=True, timeout=60,
            env=_environ() | {"GALAXY_REDIS": self.url()},
        )  # fmt: skip
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def run(self, job: dict[str, Any], timeout_s: float = 30.0) -> None:
        """Submit a job and wait until it has settled."""
        self.change("submit", job)
        try:
            until(f"{job['name']} runs", lambda: self.job(job["name"]).settled, timeout_s)
        except AssertionError:
            print(self.job(job["name"]))
            raise

    def remove(self, name: str) -> None:
        """Remove a job and wait until none of its containers is left."""
        with suppress(GalaxyError):
            self.change("remove", name)
        until(f"nothing of {name} is left", lambda: not self.containers(name), 30)

    def containers(self, job: str) -> set[str]:
        """Return ``AGENT/CONTAINER_INCARNATION`` of every container of ``job`` on the agents' disks."""
        paths = self.folder.glob(f"h?/c/{job}-*")
        return {f"{path.parts[-3]}/{path.name}" for path in paths}

    def counts(self, job: str) -> dict[str, list[tuple[int, int]]]:
        """Return by ``AGENT/CONTAINER_INCARNATION`` the pid and number of every line its witness printed."""
        counted = {}
        for log in self.outputs(job):
            lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
            counted[f"{log.parts[-4]}/{log.parent.name}"] = [(int(pid), int(n)) for pid, n in lines]
        return counted

    def outputs(self, job: str) -> list[Path]:
        """Return the standard outputs of ``job``, one file for each program that was started."""
        return sorted(self.folder.glob(f"h?/logs/{job}-*/*.stdout"))

    def log_tails(self) -> str:
        """Return the end of every log, for a failure's message."""
        tails = {
            log.name: log.read_text(errors="replace").splitlines()[-15:] for log in self.folder.glob("*.log")
        }
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in sorted(tails.items()))


class Fleet(HostCluster):
    """Four hosts with agents, one with both leaders, one with Redis, and one for clients."""

    def __init__(self, network: Network) -> None:
        self.redis = network.add("redis")
        self.leader_host = network.add("leader_host")
        client_host = network.add("client_host")
        super().__init__({name: network.add(name) for name in AGENTS}, client_host)

    def url(self, role: str = "client", host: str = "") -> str:
        return f"redis://:{PASSWORD}@{self.redis.address}:6379/0"

    def start(self) -> None:
        """Start every process; return once all agents are alive."""
        (self.folder / "redis").mkdir()
        self._start(self.redis, "redis", [
            server_binary(), "--bind", self.redis.address, "--port", "6379", "--requirepass", PASSWORD,
            "--dir", str(self.folder / "redis"), "--appendonly", "yes", "--appendfsync", "everysec",
            "--save", "", "--maxmemory-policy", "noeviction",
        ])  # fmt: skip
        until("Redis answers", lambda: b"Ready to accept" in (self.folder / "redis.log").read_bytes())
        self._part(
            self.leader_host,
            "resman",
            "--name",
            "leader_host",
            "--suspect-after",
            f"{SUSPECT_S:g}s",
            "--dead-after",
            f"{DEAD_S:g}s",
        )
        self._part(self.leader_host, "appmaster", "--name", "leader_host")
        for name in self.agents:
            self._agent(name)
        everyone = dict.fromkeys(AGENTS, "alive")
        until("all agents are alive", lambda: self.agent_states() == everyone, 60)


def _environ() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("GALAXY_")}


def witness(name: str, replica: int, **task: Any) -> dict[str, Any]:
    """Return a job: a service of witnesses, at most two of them on a host."""
    return {
        "name": name,
        "deploy": {"replica": replica, "max_per_host": 2},
        "pod": {
            "workspace": {"path": "/home/work", "size": "16M"},
            "tasks": [{
                "cpu": "50m", "memory": "32M", "start": COUNTER,
                "ports": [{"name": "http", "port": "dynamic"}],
                "services": [{"name": name, "port": "http"}],
                "health": {"type": "command", "command": "true", "interval": "10s"},
            } | task],
        },
    }  # fmt: skip


def is_gapless(lines: list[tuple[int, int]]) -> bool:
    """Return whether ``lines`` are of one process and count 1, 2, 3, ... without a gap."""
    return len({pid for pid, _ in lines}) == 1 and [n for _, n in lines] == list(range(1, len(lines) + 1))


def write(folder: Path, job: dict[str, Any]) -> Path:
    """Write a job file."""
    path = folder / f"{job['name']}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path
