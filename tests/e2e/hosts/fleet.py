"""A cluster of real processes on hosts of their own: each agent, the leaders and Redis behind a link each."""

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
from tests.support.asking import Asking
from tests.support.netns import Host, Network
from tests.support.redis_server import server_binary
from tests.support.waiting import until

GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]
AGENTS = ("h1", "h2", "h3", "h4")
SUSPECT_S = 4.0
DEAD_S = 14.0
"""Of ResMan, in place of 10 and 30 s: so the tests are done in two minutes."""
PASSWORD = "s3cret"
COUNTS = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.2; done"
"""A witness: its own pid and how far it has counted, five times a second."""


class Crew(Asking):
    """Processes on hosts, all files in one folder: agents by name, and a desk where clients sit."""

    def __init__(self, agents: dict[str, Host], desk: Host) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="galaxy-hosts-")).resolve()
        self.agents = agents
        self.desk = desk
        self.roots = {name: f"galaxy-hosts-{os.getpid()}-{name}" for name in agents}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def url(self, role: str = "client", host: str = "") -> str:
        """Return how a role gets into Redis; ``host`` matters for agents."""

    def _agent(self, name: str) -> None:
        self._part(
            self.agents[name], "agent", "--name", name, "--state", str(self.state(name)),
            "--cgroup-root", self.roots[name], "--package-root", str(self.folder), log=name,
        )  # fmt: skip

    def _part(self, host: Host, part: str, *options: str, log: str = "") -> None:
        url = self.url(part, log if part == "agent" else "")
        self._start(host, log or part, [*GALAXY, part, "--redis", url, *options])

    def _start(self, host: Host, name: str, words: list[str]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = host.popen(
                words,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> list[str]:
        """Kill everything, and return what is left of it all the same."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(30)
        left = leftovers.remove(self.folder, list(self.roots.values()), timeout_s=30)
        shutil.rmtree(self.folder, ignore_errors=True)
        return list(left.lines())

    # ---- looking, as clients do

    def state(self, agent: str) -> Path:
        return self.folder / agent

    @contextmanager
    def sdk(self, timeout_s: float = 5.0, desk: Host | None = None) -> Iterator[Galaxy]:
        with (desk or self.desk).inside(), Galaxy(self.url(), timeout_s=timeout_s) as galaxy:
            yield galaxy

    def endpoints(self, service: str) -> list[EndpointView]:
        return self.ask(lambda galaxy: galaxy.discover(service))

    def standings(self) -> dict[str, str]:
        def listed(galaxy: Galaxy) -> list[AgentView]:
            return galaxy.agents()

        return {agent.agent: agent.state for agent in self.ask(listed)}

    def events(self, subject: str) -> list[str]:
        """Return what the trace has of a job, an agent or the cluster, oldest first."""
        with self.desk.inside():
            nexus = Nexus.connect(self.url(), name="test")
            try:
                return [event.kind for event in nexus.trace((subject,), limit=500)]
            finally:
                nexus.close()

    def cli(self, *words: str, status: int = 0) -> str:
        """Run ``galaxy WORDS``; return what it printed."""
        done = self.desk.run(
            [*GALAXY, *words], capture_output=True, text=True, timeout=60,
            env=_environ() | {"GALAXY_REDIS": self.url()},
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def run(self, job: dict[str, Any], timeout_s: float = 30.0) -> None:
        """Submit a job, and wait until all of it runs."""
        self.change("submit", job)
        try:
            until(f"{job['name']} runs", lambda: self.job(job["name"]).settled, timeout_s)
        except AssertionError:
            print(self.job(job["name"]))
            raise

    def remove(self, name: str) -> None:
        with suppress(GalaxyError):
            self.change("remove", name)
        until(f"nothing of {name} is left", lambda: not self.lives(name), 30)

    # ---- looking, on the hosts' own disks

    def lives(self, job: str) -> set[str]:
        """Return ``AGENT/CONTAINER_INCARNATION`` of every container of ``job`` that is there."""
        found = self.folder.glob(f"h?/c/{job}-*")
        return {f"{path.parts[-3]}/{path.name}" for path in found}

    def counts(self, job: str) -> dict[str, list[tuple[int, int]]]:
        """Return, by ``AGENT/CONTAINER_INCARNATION``, what its witness has counted so far."""
        counted = {}
        for log in self.outputs(job):
            lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
            counted[f"{log.parts[-4]}/{log.parent.name}"] = [(int(pid), int(n)) for pid, n in lines]
        return counted

    def outputs(self, job: str) -> list[Path]:
        """Return what programs of ``job`` wrote, a file for each that was begun."""
        return sorted(self.folder.glob(f"h?/logs/{job}-*/*.stdout"))

    def words(self) -> str:
        """Return the ends of all logs, for a failure's message."""
        ends = {
            log.name: log.read_text(errors="replace").splitlines()[-15:] for log in self.folder.glob("*.log")
        }
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in sorted(ends.items()))


class Fleet(Crew):
    """Four agents, one host with both leaders, one with Redis (append-only file on), one for clients."""

    def __init__(self, network: Network) -> None:
        self.redis = network.add("redis")
        self.heads = network.add("heads")
        desk = network.add("desk")
        super().__init__({name: network.add(name) for name in AGENTS}, desk)

    def url(self, role: str = "client", host: str = "") -> str:
        return f"redis://:{PASSWORD}@{self.redis.address}:6379/0"

    def start(self) -> None:
        (self.folder / "redis").mkdir()
        self._start(self.redis, "redis", [
            server_binary(), "--bind", self.redis.address, "--port", "6379", "--requirepass", PASSWORD,
            "--dir", str(self.folder / "redis"), "--appendonly", "yes", "--appendfsync", "everysec",
            "--save", "", "--maxmemory-policy", "noeviction",
        ])  # fmt: skip
        until("Redis answers", lambda: b"Ready to accept" in (self.folder / "redis.log").read_bytes())
        dead = ("--dead-after", f"{DEAD_S:g}s")
        self._part(self.heads, "resman", "--name", "heads", "--suspect-after", f"{SUSPECT_S:g}s", *dead)
        self._part(self.heads, "appmaster", "--name", "heads", *dead)
        for name in self.agents:
            self._agent(name)
        until("all agents are alive", lambda: set(self.standings().values()) == {"alive"} and
              len(self.standings()) == len(AGENTS), 60)  # fmt: skip


def _environ() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("GALAXY_")}


def witness(name: str, replica: int, **task: Any) -> dict[str, Any]:
    """Return a service that counts, at most two of it on a host."""
    return {
        "name": name,
        "deploy": {"replica": replica, "max_per_host": 2},
        "pod": {
            "workspace": {"path": "/home/work", "size": "16M"},
            "tasks": [{
                "cpu": "50m", "memory": "32M", "start": COUNTS,
                "ports": [{"name": "http", "port": "dynamic"}],
                "services": [{"name": name, "port": "http"}],
                "health": {"type": "command", "command": "true", "interval": "10s"},
            } | task],
        },
    }  # fmt: skip


def unbroken(lines: list[tuple[int, int]]) -> bool:
    """Return whether one program alone wrote ``lines``, without leaving a number out."""
    return len({pid for pid, _ in lines}) == 1 and [n for _, n in lines] == list(range(1, len(lines) + 1))


def write(folder: Path, job: dict[str, Any]) -> Path:
    path = folder / f"{job['name']}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path
