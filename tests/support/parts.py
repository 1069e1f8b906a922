"""One host whose parts are started and stopped each by itself, and may be of different releases."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galaxy.cli.local import leftovers
from galaxy.client import Galaxy
from galaxy.model.api.views import PodView
from galaxy.nexus.nexus import Nexus
from tests.support.asking import Asking
from tests.support.waiting import until

COUNTS = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.1; done"


class Parts(Asking):
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
        process.wait(60)

    def end(self) -> None:
        for part in list(self.processes):
            self.stop(part, signal.SIGKILL)

    def log(self, part: str) -> Path:
        return self.folder / f"{part}.log"

    # ---- looking

    def sdk(self) -> Galaxy:
        return Galaxy(self.url)

    def run(self, job: dict[str, Any]) -> list[PodView]:
        """Submit a job, or update it if it is there; return its pods when all is as wanted."""
        name = job["name"]
        if any(summary.name == name for summary in self.ask(lambda galaxy: galaxy.jobs())):
            self.change("update", job)
        else:
            self.change("submit", job)
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


@contextmanager
def one_host(url: str, prefix: str, agents: Sequence[str] = ("h1",)) -> Iterator[Parts]:
    """Yield a host for parts, in a folder of its own, and leave nothing of it nor of its ``agents``."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    made = Parts(folder, url)
    try:
        yield made
    finally:
        made.end()
        print(made.words())  # Shown with a failure.
        left = leftovers.remove(folder, [f"{made.root}-{name}" for name in agents], timeout_s=30)
        shutil.rmtree(folder, ignore_errors=True)
    assert not left


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
