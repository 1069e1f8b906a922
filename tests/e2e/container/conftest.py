"""Real containers, created by a real launcher; fixtures remove them after the test."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.kernel import processes
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.runtime import Destroyed, Launched, LaunchFailed, Runtime, RuntimeEvent
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.units import MIB
from tests.support.timeouts import TIMEOUT_FACTOR

HERE = Path(__file__).resolve().parent
WAIT_S = 30.0 * TIMEOUT_FACTOR

_NUMBERS = itertools.count()


class Host:
    """The containers of one agent, with ``command_entry`` as the first process of each."""

    def __init__(self, state: Path, mode: str, *, entry: str = "command_entry:run") -> None:
        self.state, self.mode, self._entry = state, mode, entry
        self.cgroup_root = f"galaxy-test-{os.getpid()}-{next(_NUMBERS)}"
        self.seen: list[RuntimeEvent] = []
        self.runtime = self._new_runtime()
        self._requested: list[LaunchPlan] = []
        self._first = 0
        self._stopped = False

    def _new_runtime(self) -> Runtime:
        runtime = Runtime(self.state, cgroup_root=self.cgroup_root, mode=self.mode, entry=self._entry)
        runtime.start()
        return runtime

    def restart_agent(self) -> None:
        """Close the connection, as a killed agent does, and connect again as another agent."""
        self.runtime.close()
        self.runtime = self._new_runtime()

    def plan(self, index: int = 0, *, incarnation: int = 1, **changes: Any) -> LaunchPlan:
        task: dict[str, Any] = {"name": "web", "cpu_milli": 500, "memory_bytes": 48 * MIB, "pids_max": 24}
        task |= changes.pop("task", {})
        demand: dict[str, Any] = {
            "tasks": (TaskDemand(**task),),
            "workspace": VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB, medium=Medium.TMPFS),
        } | changes.pop("demand", {})
        user = {"run_uid": 65534, "run_gid": 65534} if self.mode == "full" else {}
        return LaunchPlan(
            container=f"t-{os.getpid():x}.{self._first + index}",
            incarnation=incarnation,
            host="h1",
            demand=Demand(**demand),
            **{**user, **changes},
        )

    def request(self, plan: LaunchPlan) -> None:
        """Request a container without waiting for the outcome; ``close`` destroys it."""
        self._requested.append(plan)
        self.runtime.launch(plan)

    def launch(self, plan: LaunchPlan) -> Launched:
        self.request(plan)
        event = self.event(plan, Launched, LaunchFailed)
        assert isinstance(event, Launched), event
        return event

    def destroy(self, plan: LaunchPlan) -> None:
        self.runtime.destroy(plan.container, plan.incarnation)
        self.event(plan, Destroyed)

    def clear(self) -> None:
        """Destroy every container, so that the next test starts with an empty launcher."""
        requested, self._requested = self._requested, []
        for plan in requested:
            self.destroy(plan)
        self.seen.clear()
        self._first += 100  # No name is used twice.

    def stop(self) -> None:
        """Stop the launcher, which deletes its garbage first."""
        self.runtime.stop_launcher()
        self._stopped = True

    def event(self, plan: LaunchPlan, *kinds: type) -> RuntimeEvent:
        """Wait for an event of one of ``kinds`` about ``plan``; other events stay in ``seen``."""
        return self.until(lambda e: isinstance(e, kinds) and getattr(e, "key", plan.key) == plan.key)

    def until(self, condition: Callable[[RuntimeEvent], bool]) -> RuntimeEvent:
        """Wait for an event for which ``condition`` is true; other events stay in ``seen``."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for event in self.seen:
                if condition(event):
                    self.seen.remove(event)
                    return event
            select.select([self.runtime], [], [], 1.0)
            self.seen += self.runtime.events()
        raise TimeoutError(f"no such event; seen: {self.seen}")

    def ask(self, plan: LaunchPlan, **command: Any) -> dict[str, Any]:
        """Send one command to the first process and return its answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(WAIT_S)
            place = os.open(self.runtime.socket_path(plan.container, plan.incarnation).parent, os.O_PATH)
            try:
                sock.connect(f"/proc/self/fd/{place}/sock")
            finally:
                os.close(place)
            sock.send(json.dumps(command).encode())
            return dict(json.loads(sock.recv(1 << 18)))

    def sh(self, plan: LaunchPlan, script: str, **more: Any) -> dict[str, Any]:
        """Run a shell script as a program of the container."""
        return self.ask(plan, task="web", argv=["/bin/sh", "-c", script], **more)

    def python(self, plan: LaunchPlan, script: str, **more: Any) -> dict[str, Any]:
        return self.ask(plan, task="web", argv=["/usr/bin/python3", "-I", "-S", "-c", script], **more)

    def launcher_pid(self) -> int:
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    argv = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                    ours = b"galaxy.container.launcher.server" in argv and str(self.state).encode() in argv
                    # Warm processes and containers have the launcher's command line too.
                    if ours and processes.parent(int(name)) in (0, 1, os.getpid()):
                        return int(name)
        raise LookupError("no launcher")

    def close(self) -> None:
        """Remove everything, also after a failed test."""
        try:
            for plan in self._requested if not self._stopped else ():
                with contextlib.suppress(TimeoutError):
                    self.destroy(plan)
            with contextlib.suppress(Exception):
                self.stop()
        finally:
            with contextlib.suppress(Exception):
                self.runtime.close()
            with contextlib.suppress(LookupError, ProcessLookupError):  # It may have exited already.
                os.kill(self.launcher_pid(), signal.SIGKILL)
            if self.mode == "full":
                tree = CgroupTree.of_host(self.cgroup_root)
                for key in tree.container_keys():
                    tree.kill(key)
                    tree.remove(key)
                tree.remove_root()
            shutil.rmtree(self.state, ignore_errors=True)


def new_host(mode: str, **options: str) -> Host:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[2]), str(HERE)])
    state = Path(tempfile.mkdtemp(prefix="gxt-"))
    return Host(state, mode, **options)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PYTHONPATH", "")  # So that monkeypatch restores what ``new_host`` sets.
    host = new_host("full")
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def gated_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose warm processes fail, or wait while a file exists; see ``gated_entry``."""
    monkeypatch.setenv("PYTHONPATH", "")  # So that monkeypatch restores what ``new_host`` sets.
    host = new_host("full", entry="gated_entry:run")
    try:
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def launcher() -> Iterator[Host]:
    """One launcher for a whole module, for tests that only inspect containers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "")  # So that monkeypatch restores what ``new_host`` sets.
        host = new_host("full")
        try:
            yield host
        finally:
            host.close()


@pytest.fixture
def as_nobody(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one of the scripts here as an unprivileged user and return what it printed as JSON."""

    def run(script: str, *arguments: str) -> Any:
        state = tempfile.mkdtemp(prefix="gxt-")
        command = [sys.executable, str(HERE / script), state, *arguments]
        if os.geteuid() == 0:
            os.chown(state, 65534, 65534)
            # With nice, because without root a program cannot get a better nice value than the agent.
            command = [
                "nice",
                "-n",
                "5",
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                *command,
            ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(HERE), *sys.path]),
            "HOME": state,
        }
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60 * TIMEOUT_FACTOR,
                env=environment,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout.splitlines()[-1])
        finally:
            shutil.rmtree(state, ignore_errors=True)

    return run
