"""AppWorker in a forked child without the container package; the test acts as its agent."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from galaxy.model.base import decode, encode
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.messages.pod import ObservedPod, ObservedTask, PodOrder
from galaxy.model.messages.worker import (
    PACKET_BYTES_MAX,
    FromWorker,
    Order,
    PackageAnswer,
    Report,
    RequestPackage,
    TaskCgroup,
    WorkerConfig,
)
from galaxy.worker_entry.main import run
from tests.support.timeouts import TIMEOUT_FACTOR

MIB = 1024 * 1024
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
NOBODY = 65534


def task_spec(start: str, name: str = "main", **more: Any) -> TaskSpec:
    more.setdefault("cpu", CpuSpec(millicores=100))
    more.setdefault("memory", MemorySpec(size=64 * MIB))
    return TaskSpec(name=name, start=start, **more)


class Cgroups:
    """A real cgroup with limits of pids and memory for one task: two on v1, one on v2."""

    def __init__(self, memory_bytes: int = 64 * MIB, pids_max: int = 64) -> None:
        name = f"galaxy-test-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        top = Path("/sys/fs/cgroup")
        unified = (top / "cgroup.controllers").exists()
        if unified:
            (top / "cgroup.subtree_control").write_text("+pids +memory")
        self.paths = (
            [top / name] if unified else [top / controller / name for controller in ("pids", "memory")]
        )
        for path in self.paths:
            path.mkdir()
        pids, memory = self.paths[0], self.paths[-1]
        (pids / "pids.max").write_text(str(pids_max))
        (memory / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(memory_bytes))
        self.procs_fds = tuple(os.open(path / "cgroup.procs", os.O_RDWR) for path in self.paths)
        oom = memory / ("memory.events.local" if unified else "memory.oom_control")
        self.fds = [*self.procs_fds, os.open(oom, os.O_RDONLY), os.open(pids / "pids.max", os.O_RDWR)]
        self.oom_event_fd = -1
        if not unified:
            self.oom_event_fd = os.eventfd(0, os.EFD_NONBLOCK)
            (memory / "cgroup.event_control").write_text(f"{self.oom_event_fd} {self.fds[-2]}")
        self.pids_max = pids_max

    def task(self, name: str) -> TaskCgroup:
        return TaskCgroup(
            name=name,
            procs_fds=self.procs_fds,
            oom_fd=self.fds[-2],
            oom_event_fd=self.oom_event_fd,
            pids_fd=self.fds[-1],
            pids_max=self.pids_max,
        )

    def pids(self) -> list[int]:
        return [int(line) for line in (self.paths[0] / "cgroup.procs").read_text().split()]

    def close(self) -> None:
        for fd in (*self.fds, self.oom_event_fd):
            if fd >= 0:
                os.close(fd)
        for path in self.paths:
            deadline = time.monotonic() + 10
            while path.exists():
                for pid in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    path.rmdir()
                assert time.monotonic() < deadline, f"{path} does not go away"
                time.sleep(0.01)


class Container:
    """One AppWorker and the agent's end of its socket. ``packages`` maps a source to an archive."""

    def __init__(self, root: Path, *, pid_namespace: bool = False, **config: Any) -> None:
        self.root = root
        self.workspace = root / "w"
        self.workspace.mkdir()
        self.logs = root / "logs"
        self.logs.mkdir()
        if config.get("run_uid", -1) >= 0:
            os.chown(self.workspace, config["run_uid"], config["run_uid"])
        self.packages: dict[str, Path | str] = {}
        self.fetched: list[str] = []
        self.report: ObservedPod | None = None
        self.reports: list[ObservedPod] = []
        self.others: list[tuple[FromWorker, list[int]]] = []
        self.agent: socket.socket | None = None
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(str(root / "s"))
        listening.listen(8)
        log_fd = os.open(self.logs, os.O_RDONLY | os.O_DIRECTORY)
        config = {"tasks": (TaskCgroup(name="main"),), **config}
        self.config = WorkerConfig(
            container="web-abc.0",
            incarnation=1,
            host="h1",
            workspace=str(self.workspace),
            listen_fd=listening.fileno(),
            log_fd=log_fd,
            isolated=pid_namespace,
            **config,
        )
        self.pids = self._launch(pid_namespace)
        listening.close()
        os.close(log_fd)
        self.generation = 0
        self.connect()

    @property
    def pid(self) -> int:
        return self.pids[-1]

    def _launch(self, pid_namespace: bool) -> list[int]:
        read_end, write_end = os.pipe()
        outer = os.fork()
        if outer == 0:
            code = 99
            try:
                os.setsid()
                os.close(read_end)
                if pid_namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    assert libc.unshare(CLONE_NEWNS | CLONE_NEWPID) == 0
                    inner = os.fork()
                    if inner:
                        os.write(write_end, str(inner).encode())
                        os.close(write_end)
                        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 255)
                    assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
                    assert libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0
                os.close(write_end)
                run(self.config)
            finally:
                os._exit(code)
        os.close(write_end)
        with open(read_end, "rb") as file:
            inner_pid = file.read()
        return [outer, int(inner_pid)] if inner_pid else [outer]

    # ---- the agent's side

    def connect(self) -> socket.socket:
        self.agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.agent.connect(str(self.root / "s"))
        return self.agent

    def send(self, packet: Any, fds: tuple[int, ...] = ()) -> None:
        self.send_raw(encode(packet), fds)

    def send_raw(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        assert self.agent is not None
        files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.agent.sendmsg([data], files)

    def order(self, *tasks: TaskSpec, run: bool = True, **more: Any) -> PodOrder:
        """Send the next order and return it."""
        self.generation = more.pop("generation", self.generation + 1)
        more.setdefault("revision", self.generation)
        order = PodOrder(
            pod="web-abc.0",
            incarnation=1,
            generation=self.generation,
            job="web-abc",
            index=0,
            run=run,
            tasks=tasks,
            **{"stop_timeout": 5.0, **more},
        )
        self.send(Order(order=order))
        return order

    def receive(self, timeout_s: float) -> FromWorker | None:
        """Read one packet: answer requests for packages, and keep reports and other packets."""
        assert self.agent is not None
        if not select.select([self.agent], [], [], timeout_s)[0]:
            return None
        data, ancillary, _, _ = self.agent.recvmsg(PACKET_BYTES_MAX, socket.CMSG_SPACE(64))
        assert data, "AppWorker closed the connection"
        files: array.array[int] = array.array("i")
        for _, _, content in ancillary:
            files.frombytes(content)
        packet: FromWorker = decode(data, FromWorker)  # type: ignore[arg-type]
        match packet:
            case Report():
                self.report = packet.pod
                self.reports.append(packet.pod)
            case RequestPackage():
                self.fetched.append(packet.version)
                self.serve_package(packet)
            case _:
                self.others.append((packet, list(files)))
        return packet

    def serve_package(self, request: RequestPackage) -> None:
        archive = self.packages.get(request.source, "no such package")
        if isinstance(archive, str):
            self.send(
                PackageAnswer(request=request.request, error=archive, retry=not archive.startswith("final"))
            )
            return
        with archive.open("rb") as file:
            self.send(PackageAnswer(request=request.request), (file.fileno(),))

    def until(
        self, condition: Callable[[ObservedPod], Any], timeout_s: float = 30.0 * TIMEOUT_FACTOR
    ) -> ObservedPod:
        """Wait for a report for which ``condition`` holds, and return it."""
        deadline = time.monotonic() + timeout_s
        while self.report is None or not condition(self.report):
            left = deadline - time.monotonic()
            assert left > 0 and self.receive(left) is not None, f"not in {timeout_s} s; last: {self.report}"
        return self.report

    def until_task(
        self, condition: Callable[[ObservedTask], Any], timeout_s: float = 30.0 * TIMEOUT_FACTOR
    ) -> ObservedTask:
        generation = self.generation
        return self.until(
            lambda pod: pod.generation == generation and any(condition(task) for task in pod.tasks), timeout_s
        ).tasks[0]

    def until_packet(self, kind: Any, timeout_s: float = 30.0 * TIMEOUT_FACTOR) -> tuple[Any, list[int]]:
        """Wait for a packet that is neither a report nor a request for a package."""
        deadline = time.monotonic() + timeout_s
        while True:
            for found in self.others:
                if isinstance(found[0], kind):
                    self.others.remove(found)
                    return found
            left = deadline - time.monotonic()
            assert left > 0 and self.receive(left) is not None, f"no {kind} in {timeout_s} s"

    def until_true(self, condition: Callable[[], Any], timeout_s: float = 30.0 * TIMEOUT_FACTOR) -> Any:
        """Wait until ``condition()``, e.g. about files, is true; packets are served."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < deadline, f"not in {timeout_s} s; last report: {self.report}"
            self.receive(0.01)
        return result

    def text(self, name: str) -> str:
        try:
            return (self.workspace / name).read_text()
        except FileNotFoundError:
            return ""

    def log(self, name: str = "main.stdout") -> str:
        try:
            return (self.logs / name).read_text()
        except FileNotFoundError:
            return ""

    def ended(self, timeout_s: float = 30.0 * TIMEOUT_FACTOR) -> int:
        """Wait for AppWorker's end and return its exit code."""
        deadline = time.monotonic() + timeout_s
        while True:
            pid, status = os.waitpid(self.pids[0], os.WNOHANG)
            if pid:
                self.pids = []
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"AppWorker did not end in {timeout_s} s"
            time.sleep(0.01)

    def close(self) -> None:
        if self.agent is not None:
            self.agent.close()
        if not self.pids:
            return
        # Without a PID namespace only AppWorker can end all processes that it started.
        os.kill(self.pid, signal.SIGKILL if len(self.pids) > 1 else signal.SIGTERM)
        try:
            self.ended(timeout_s=40.0)
        except AssertionError:
            for pid in reversed(self.pids):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(self.pids[0], 0)
            raise


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path, because Unix sockets allow 107 bytes, that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def launch(root: Path) -> Iterator[Callable[..., Container]]:
    """Return a function that launches containers; they are ended after the test."""
    launched: list[Container] = []

    def make(**config: Any) -> Container:
        place = root / str(len(launched))
        place.mkdir()
        launched.append(Container(place, **config))
        return launched[-1]

    yield make
    for container in launched:
        container.close()


@pytest.fixture
def container(launch: Callable[..., Container]) -> Container:
    """A container of mode ``process``: no namespaces, no cgroups."""
    return launch()


@pytest.fixture
def cgroups() -> Iterator[Callable[..., Cgroups]]:
    created: list[Cgroups] = []

    def make(**limits: int) -> Cgroups:
        created.append(Cgroups(**limits))
        return created[-1]

    yield make
    for each in created:
        each.close()


@pytest.fixture
def spec() -> Callable[..., TaskSpec]:
    return task_spec


def replace(spec: TaskSpec, **changes: Any) -> TaskSpec:
    return msgspec.structs.replace(spec, **changes)
