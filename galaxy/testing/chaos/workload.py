"""A client that uses the cluster during the faults: it repeats each change until it is acknowledged."""

from __future__ import annotations

import random
import tarfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError, Unreachable
from galaxy.testing.chaos import witness
from galaxy.testing.chaos.real_cluster import RealCluster
from galaxy.testing.chaos.witness_listener import WitnessListener

WITNESS: Final = "witness"
"""The job that is never changed: its programs count from the beginning to the end."""
WITNESSES_PER_AGENT: Final = 3
JOBS_MAX: Final = 3
"""Jobs that are updated, scaled, stopped, started and removed, at a time."""
REPLICA_MAX: Final = 2
REQUEST_S: Final = 3.0
ANSWER_S_MAX: Final = 90.0
"""A change without an answer for this long counts as lost."""
PACE_S: Final = 0.7
"""Mean time between two changes."""


@dataclass(frozen=True)
class ExpectedJob:
    """The acknowledged state of a job: ``state`` is running, stopped, removed or finished."""

    name: str
    state: str = "running"
    replica: int = 1
    version: int = 1


@dataclass
class Workload:
    """A thread that changes jobs at random. ``expected`` has what was acknowledged, by job name.

    ``changes`` counts acknowledged changes by kind; ``violations`` describes changes that were
    refused or not answered.
    """

    cluster: RealCluster
    listener: WitnessListener
    rng: random.Random
    note: Callable[[str], None]
    expected: dict[str, ExpectedJob] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._package = self.cluster.top / "witness.tar.gz"
        with tarfile.open(self._package, "w:gz") as archive:
            archive.add(Path(witness.__file__), arcname="witness.py")
        self._number = 0
        self._victims = 0
        self._galaxy: Galaxy | None = None
        self._change_lock = threading.Lock()
        self._running = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-workload", daemon=True)

    def submit_witnesses(self) -> None:
        """Submit the job whose programs count from the beginning to the end."""
        with self._change_lock:
            replica = WITNESSES_PER_AGENT * self.cluster.agents
            self._change("submit", ExpectedJob(WITNESS, replica=replica))

    def start(self) -> None:
        """Submit the witnesses and the first victim, and start to change jobs."""
        self.submit_witnesses()
        self.replace_victim()
        self._thread.start()
        self._running.set()

    def pause(self) -> None:
        """Start no more changes, and return once the current one is answered."""
        self._running.clear()
        with self._change_lock:
            return

    def resume(self) -> None:
        """Change jobs again."""
        self._running.set()

    def close(self) -> None:
        """Stop the thread and close the client."""
        self._closing.set()
        self._running.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_S_MAX)
        if self._galaxy is not None:
            self._galaxy.close()

    @property
    def victim(self) -> str:
        """The name of the job whose PID 1 may be killed."""
        return f"victim-{self._victims}"

    def replace_victim(self) -> None:
        """Submit a new victim: the restart policy would delay a container slot that fails repeatedly."""
        with self._change_lock:
            if self._victims:
                self._change("remove", replace(self.expected[self.victim], state="removed"))
            self._victims += 1
            self._change("submit", ExpectedJob(self.victim))

    def submit_batch(self, name: str = "") -> None:
        """Submit a new batch job, and return once it is acknowledged."""
        with self._change_lock:
            self._submit_batch(name)

    def spec(self, job: ExpectedJob) -> dict[str, Any]:
        """Return the job's spec: the witness program; its version is an environment variable."""
        once = job.state == "finished"
        task = {
            "cpu": "200m" if once else "100m",
            "memory": "32M",
            "package": {"source": str(self._package), "version": "1"},
            "start": "exec python3 -S -E witness.py",
            "env": {
                "CHAOS_SOCKET": self.listener.address,
                "CHAOS_JOB": job.name,
                "CHAOS_MODE": "once" if once else "count",
                "CHAOS_VERSION": str(job.version),
            },
        }
        return {
            "name": job.name,
            "type": "batch" if once else "service",
            "deploy": {"replica": job.replica, "step": REPLICA_MAX, "stop_timeout": "1s", "drain": 0},
            "pod": {"workspace": "8M", "tasks": [task]},
        }

    def _run(self) -> None:
        """Change jobs until closed. An unexpected error ends the thread and is a violation."""
        try:
            self._change_jobs()
        except Exception:  # noqa: BLE001 - it is reported as a violation
            self.violations.append(f"the workload failed: {traceback.format_exc().rstrip()}")

    def _change_jobs(self) -> None:
        while not self._closing.is_set():
            self._running.wait()
            with self._change_lock:
                if self._running.is_set() and not self._closing.is_set():
                    self._change_one()
            self._closing.wait(PACE_S * self.rng.uniform(0.5, 1.5))

    def _change_one(self) -> None:
        changeable = [
            job for job in self.expected.values() if job.name.startswith("load-") and job.state != "removed"
        ]
        kind = self.rng.choice(("batch", "submit", "update", "update", "scale", "stop", "remove"))
        if kind == "batch":
            self._submit_batch()
        elif not changeable or (kind == "submit" and len(changeable) < JOBS_MAX):
            self._number += 1
            replica = self.rng.randint(1, REPLICA_MAX)
            self._change("submit", ExpectedJob(f"load-{self._number}", replica=replica))
        else:
            job = self.rng.choice(changeable)
            if job.state == "stopped":
                self._change("start", replace(job, state="running"))
            elif kind == "stop":
                self._change("stop", replace(job, state="stopped"))
            elif kind == "remove":
                self._change("remove", replace(job, state="removed"))
            elif kind == "scale":
                self._change("scale", replace(job, replica=job.replica % REPLICA_MAX + 1))
            else:
                self._change("update", replace(job, version=job.version + 1))

    def _submit_batch(self, name: str = "") -> None:
        self._number += 1
        self._change("batch", ExpectedJob(name or f"batch-{self._number}", state="finished"))

    def _change(self, kind: str, to: ExpectedJob) -> None:
        """Request a change under one idempotency key until it is answered; then expect its result."""
        self._number += 1
        key = f"{self.listener.address}-{self._number}"
        if kind in ("update", "start", "scale"):
            self.listener.allow_restart(to.name)
        began_s = time.monotonic()
        while True:
            try:
                self._request(kind, to, key)
                break
            except Unreachable as error:
                if time.monotonic() - began_s > ANSWER_S_MAX:
                    self.violations.append(
                        f"{kind} {to.name} was not answered in {ANSWER_S_MAX:.0f} s: {error}"
                    )
                    return
                self._closing.wait(0.1)
            except GalaxyError as error:
                self.violations.append(f"{kind} {to.name} was refused: {error}")
                return
        self.expected[to.name] = to
        self.changes[kind] = self.changes.get(kind, 0) + 1
        self.note(f"{kind} {to.name}: acknowledged after {time.monotonic() - began_s:.2f} s")

    def _request(self, kind: str, to: ExpectedJob, key: str) -> None:
        if self._galaxy is None:
            self._galaxy = self.cluster.galaxy(REQUEST_S)
        galaxy = self._galaxy
        if kind in ("submit", "batch"):
            galaxy.submit(self.spec(to), key=key)
        elif kind in ("update", "scale"):
            galaxy.update(self.spec(to), key=key)
        elif kind == "stop":
            galaxy.stop(to.name, key=key)
        elif kind == "start":
            galaxy.start(to.name, key=key)
        else:
            galaxy.remove(to.name, key=key)
