"""Somebody who uses the cluster while it suffers: every change is asked for until it is answered."""

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
"""The job that nobody touches: its programs count from the beginning to the end."""
STEADY: Final = 3
"""Its replicas, an agent."""
JOBS_MAX: Final = 3
"""Jobs that are updated, scaled, stopped, started and removed, at a time."""
REPLICA_MAX: Final = 2
ASK_S: Final = 3.0
ANSWER_MAX_S: Final = 90.0
"""A change that is not answered for so long is lost."""
PACE_S: Final = 0.7


@dataclass(frozen=True)
class ExpectedJob:
    """What was acknowledged of a job: ``state`` is running, stopped, removed or finished."""

    name: str
    state: str = "running"
    replica: int = 1
    turn: int = 1


@dataclass
class Workload:
    """A thread that changes jobs at random; ``wanted`` is what was acknowledged, by name.

    ``changes`` counts them by kind, ``wrong`` says what was refused or not answered.
    """

    cluster: RealCluster
    watch: WitnessListener
    chance: random.Random
    note: Callable[[str], None]
    wanted: dict[str, ExpectedJob] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._package = self.cluster.top / "witness.tar.gz"
        with tarfile.open(self._package, "w:gz") as archive:
            archive.add(Path(witness.__file__), arcname="witness.py")
        self._number = 0
        self._victims = 0
        self._galaxy: Galaxy | None = None
        self._asking = threading.Lock()
        self._go = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-load", daemon=True)

    def witnesses(self) -> None:
        """Submit what counts from the beginning to the end."""
        with self._asking:
            self._change("submit", ExpectedJob(WITNESS, replica=STEADY * self.cluster.agents))

    def start(self) -> None:
        """Submit the witnesses and the first victim, and begin to change jobs."""
        self.witnesses()
        self.renew_victim()
        self._thread.start()
        self._go.set()

    def hold(self) -> None:
        """Return when the change that is under way has been answered; no other begins."""
        self._go.clear()
        with self._asking:
            return

    def go(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._over.set()
        self._go.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_MAX_S)
        if self._galaxy is not None:
            self._galaxy.close()

    @property
    def victim(self) -> str:
        """Name of the job whose PID 1 may be killed."""
        return f"victim-{self._victims}"

    def renew_victim(self) -> None:
        """Take another job for that: a slot that fails again and again is held back, as it should be."""
        with self._asking:
            if self._victims:
                self._change("remove", replace(self.wanted[self.victim], state="removed"))
            self._victims += 1
            self._change("submit", ExpectedJob(self.victim))

    def probe(self, name: str = "") -> None:
        """Have a new batch accepted."""
        with self._asking:
            self._batch(name)

    def _run(self) -> None:
        """Change jobs until it is over; what nobody expected is a wrong like any other, and the last."""
        try:
            self._change_jobs()
        except Exception:  # noqa: BLE001 - it is told as what broke the run.
            self.wrong.append(f"the load broke: {traceback.format_exc().rstrip()}")

    def _change_jobs(self) -> None:
        while not self._over.is_set():
            self._go.wait()
            with self._asking:
                if self._go.is_set() and not self._over.is_set():
                    self._one()
            self._over.wait(PACE_S * self.chance.uniform(0.5, 1.5))

    def _one(self) -> None:
        mine = [w for w in self.wanted.values() if w.name.startswith("load-") and w.state != "removed"]
        kind = self.chance.choice(("batch", "submit", "update", "update", "scale", "stop", "remove"))
        if kind == "batch":
            self._batch()
        elif not mine or (kind == "submit" and len(mine) < JOBS_MAX):
            self._number += 1
            replica = self.chance.randint(1, REPLICA_MAX)
            self._change("submit", ExpectedJob(f"load-{self._number}", replica=replica))
        else:
            job = self.chance.choice(mine)
            if job.state == "stopped":
                self._change("start", replace(job, state="running"))
            elif kind == "stop":
                self._change("stop", replace(job, state="stopped"))
            elif kind == "remove":
                self._change("remove", replace(job, state="removed"))
            elif kind == "scale":
                self._change("scale", replace(job, replica=job.replica % REPLICA_MAX + 1))
            else:
                self._change("update", replace(job, turn=job.turn + 1))

    def _batch(self, name: str = "") -> None:
        self._number += 1
        self._change("batch", ExpectedJob(name or f"batch-{self._number}", state="finished"))

    def _change(self, kind: str, to: ExpectedJob) -> None:
        """Ask for it until it is answered, under one key; then it is wanted."""
        self._number += 1
        key = f"{self.watch.address}-{self._number}"
        if kind in ("update", "start", "scale"):
            self.watch.allow(to.name)
        began_s = time.monotonic()
        while True:
            try:
                self._ask(kind, to, key)
                break
            except Unreachable as error:
                if time.monotonic() - began_s > ANSWER_MAX_S:
                    self.wrong.append(f"{kind} {to.name} was not answered in {ANSWER_MAX_S:.0f} s: {error}")
                    return
                self._over.wait(0.1)
            except GalaxyError as error:
                self.wrong.append(f"{kind} {to.name} was refused: {error}")
                return
        self.wanted[to.name] = to
        self.changes[kind] = self.changes.get(kind, 0) + 1
        self.note(f"{kind} {to.name}: acknowledged after {time.monotonic() - began_s:.2f} s")

    def _ask(self, kind: str, to: ExpectedJob, key: str) -> None:
        if self._galaxy is None:
            self._galaxy = self.cluster.galaxy(ASK_S)
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

    def spec(self, job: ExpectedJob) -> dict[str, Any]:
        """Return the job's tree: the witness, in the turn (an environment variable) that is wanted."""
        once = job.state == "finished"
        task = {
            "cpu": "200m" if once else "100m",
            "memory": "32M",
            "package": {"source": str(self._package), "version": "1"},
            "start": "exec python3 -S -E witness.py",
            "env": {
                "CHAOS_SOCKET": self.watch.address,
                "CHAOS_JOB": job.name,
                "CHAOS_MODE": "once" if once else "count",
                "CHAOS_TURN": str(job.turn),
            },
        }
        return {
            "name": job.name,
            "type": "batch" if once else "service",
            "deploy": {"replica": job.replica, "step": REPLICA_MAX, "stop_timeout": "1s", "drain": 0},
            "pod": {"workspace": "8M", "tasks": [task]},
        }
