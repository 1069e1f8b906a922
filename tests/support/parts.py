"""The parts of one host, which tests start and stop one by one, also from different releases."""

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
from tests.support.cleanup import unmount_below
from tests.support.retrying_client import RetryingClient
from tests.support.waiting import until

COUNTER = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.1; done"


class Parts(RetryingClient):
    """The parts of one host, by name: ``resman``, ``appmaster``, ``agent``."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.state = folder / "state"
        self.root = f"galaxy-parts-{os.getpid()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, part: str, release: Path | None = None, name: str = "h1") -> None:
        """Start a part, from the folder of another release if one is given."""
        arguments = [sys.executable, "-P", "-m", "galaxy.cli.main", part, "--redis", self.url, "--name", name]
        if part == "agent":
            arguments += ["--state", str(self.state / name), "--cgroup-root", f"{self.root}-{name}"]
            arguments += ["--package-root", str(self.folder)]
        with open(self.log(part), "ab") as log:
            self.processes[part] = subprocess.Popen(
                arguments, env=self.environ(release), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def environ(self, release: Path | None = None) -> dict[str, str]:
        """Return the environment of a part: none of the caller's GALAXY_ variables."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GALAXY_")}
        return kept | {"GALAXY_REDIS": self.url} | ({"PYTHONPATH": str(release)} if release else {})

    def stop(self, part: str, number: int = signal.SIGTERM) -> None:
        """Send a signal to a part and wait for its end."""
        process = self.processes.pop(part)
        process.send_signal(number)
        process.wait(60)

    def end(self) -> None:
        """Kill every part that runs."""
        for part in list(self.processes):
            self.stop(part, signal.SIGKILL)

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.folder / f"{part}.log"

    def sdk(self) -> Galaxy:
        """Return a new client."""
        return Galaxy(self.url)

    def run(self, job: dict[str, Any]) -> list[PodView]:
        """Submit a job, or update it if it exists; return its pods once they are as desired."""
        name = job["name"]
        if any(summary.name == name for summary in self.ask(lambda galaxy: galaxy.jobs())):
            self.change("update", job)
        else:
            self.change("submit", job)
        revision = self.job(name).summary.revision
        return until(f"{name} is as desired", lambda: self._settled(name, revision), 40)

    def _settled(self, name: str, revision: int) -> list[PodView]:
        view = self.job(name)
        settled = view.settled and {pod.revision for pod in view.pods} == {revision}
        return list(view.pods) if settled else []

    def cli(self, *arguments: str) -> str:
        """Run ``galaxy ARGUMENTS``; return its output."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "galaxy.cli.main", *arguments],
            env=self.environ(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def events(self, subject: str) -> list[tuple[str, str]]:
        """Return kind and text of every event in the trace about a job, pod or agent, oldest first."""
        nexus = Nexus.connect(self.url, name="test")
        try:
            return [(event.kind, event.text) for event in nexus.trace((subject,), limit=500)]
        finally:
            nexus.close()

    def counts(self, job: str) -> dict[str, list[tuple[int, int]]]:
        """Return, by container incarnation, the pid and number of every line its program printed."""
        counts = {}
        for log in sorted(self.state.glob(f"h1/logs/{job}-*/*.stdout")):
            lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
            counts[log.parent.name] = [(int(pid), int(number)) for pid, number in lines]
        return counts

    def log_tails(self) -> str:
        """Return the end of every log, for a failure's message."""
        logs = [*self.folder.glob("*.log"), *self.state.glob("*/launcher.log")]
        tails = {log.name: log.read_text(errors="replace").splitlines()[-12:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in sorted(tails.items()))


@contextmanager
def one_host(url: str, prefix: str, agents: Sequence[str] = ("h1",)) -> Iterator[Parts]:
    """Yield a host in a folder of its own; afterwards assert that nothing of its ``agents`` is left."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    parts = Parts(folder, url)
    try:
        yield parts
    finally:
        parts.end()
        left = leftovers.remove(folder, [f"{parts.root}-{name}" for name in agents], timeout_s=30)
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert not left


def witness(name: str, **task: Any) -> dict[str, Any]:
    """Return a job: a service of two pods that print their pid and a growing number."""
    return {
        "name": name,
        "deploy": {"replica": 2, "step": 2, "drain": "100ms", "stop_timeout": "5s"},
        "pod": {
            "workspace": {"path": "/home/work", "size": "16M"},
            "tasks": [{"cpu": "50m", "memory": "32M", "start": COUNTER} | task],
        },
    }


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def release_of(pid: int) -> str:
    """Return the PYTHONPATH of a process: its own, or that of the process that forked it."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((e.partition(b"=")[2].decode() for e in entries if e.startswith(b"PYTHONPATH=")), "")
