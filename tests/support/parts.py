"""One host whose parts are started and stopped each by itself, and may be of different releases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError
from galaxy.model.views import JobView, PodView
from galaxy.nexus.nexus import Nexus

T = TypeVar("T")
COUNTS = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.1; done"


class Parts:
    """Parts by name; ``start`` runs one, from a release's folder if there is one."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.state = folder / "state"
        self.root = f"galaxy-parts-{os.getpid()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, part: str, release: Path | None = None, name: str = "h1") -> None:
        """Start ``resman``, ``appmaster`` or ``agent``."""
        words = [sys.executable, "-P", "-m", "galaxy.cli.main", part, "--redis", self.url, "--name", name]
        if part == "agent":
            words += ["--state", str(self.state / name), "--cgroup-root", f"{self.root}-{name}"]
            words += ["--package-root", str(self.folder)]
        with open(self.log(part), "ab") as log:
            self.processes[part] = subprocess.Popen(
                words, env=self.environ(release), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def environ(self, release: Path | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GALAXY_")}
        return kept | {"GALAXY_REDIS": self.url} | ({"PYTHONPATH": str(release)} if release else {})

    def stop(self, part: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(part)
        process.send_signal(number)
        process.wait(20)

    def end(self) -> None:
        for part in list(self.processes):
            self.stop(part, signal.SIGKILL)

    def log(self, part: str) -> Path:
        return self.folder / f"{part}.log"

    # ---- looking

    def ask(self, what: Callable[[Galaxy], T], timeout_s: float = 20.0) -> T:
        """Ask, and again while nobody answers."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                with Galaxy(self.url) as galaxy:
                    return what(galaxy)
            except GalaxyError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.1)

    def job(self, name: str) -> JobView:
        return self.ask(lambda galaxy: galaxy.job(name))

    def pods(self, name: str) -> list[PodView]:
        return list(self.job(name).pods)

    def run(self, job: dict[str, Any]) -> list[PodView]:
        """Submit a job, or update it if it is there; return its pods when all is as wanted."""
        name = job["name"]
        if any(summary.name == name for summary in self.ask(lambda galaxy: galaxy.jobs())):
            self.ask(lambda galaxy: galaxy.update(job))
        else:
            self.ask(lambda galaxy: galaxy.submit(job))
        revision = self.job(name).summary.revision
        return until(f"{name} is as wanted", lambda: self._settled(name, revision), 40)

    def _settled(self, name: str, revision: int) -> list[PodView]:
        view = self.job(name)
        there = view.settled and {pod.revision for pod in view.pods} == {revision}
        return list(view.pods) if there else []

    def cli(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "galaxy.cli.main", *words],
            env=self.environ(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def events(self, subject: str) -> list[tuple[str, str]]:
        nexus = Nexus.connect(self.url, name="test")
        try:
            return [(event.kind, event.text) for event in nexus.trace((subject,), limit=500)]
        finally:
            nexus.close()

    def counts(self, job: str) -> dict[str, list[tuple[int, int]]]:
        """Return, by life of a container, what its program has counted."""
        found = {}
        for log in sorted(self.state.glob(f"h1/logs/{job}-*/*.stdout")):
            lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
            found[log.parent.name] = [(int(pid), int(number)) for pid, number in lines]
        return found

    def words(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.state.glob("*/launcher.log")]
        ends = {log.name: log.read_text(errors="replace").splitlines()[-12:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in sorted(ends.items()))


def witness(name: str, **task: Any) -> dict[str, Any]:
    """Return a service of two pods that count."""
    return {
        "name": name,
        "deploy": {"replica": 2, "step": 2, "drain": "100ms", "stop_timeout": "5s"},
        "pod": {
            "workspace": {"path": "/home/work", "size": "16M"},
            "tasks": [{"cpu": "50m", "memory": "32M", "start": COUNTS} | task],
        },
    }


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def release_of(pid: int) -> str:
    """Return the PYTHONPATH that a process was started with, by itself or before a fork."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((e.partition(b"=")[2].decode() for e in entries if e.startswith(b"PYTHONPATH=")), "")


def until(what: str, true: Callable[[], T], timeout_s: float = 30.0) -> T:
    """Ask until ``true`` is: nobody tells a test from outside. Returns what it said."""
    deadline = time.monotonic() + timeout_s
    while True:
        said = true()
        if said:
            return said
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
