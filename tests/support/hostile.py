"""Containers for hostile programs, with a real launcher and AppWorker; the test acts as the agent."""

from __future__ import annotations

import array
import contextlib
import http.client
import json
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

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.kernel import uid_ranges
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.protocol import Destroyed, Ended, Launched, LaunchFailed
from galaxy.container.runtime import Runtime, RuntimeEvent
from galaxy.model.base import decode, encode
from galaxy.model.jobspec.spec import CpuSpec, Medium, MemorySpec, PackageSpec, RestartSpec, TaskSpec
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.model.messages.pod import ObservedPod, PodOrder
from galaxy.model.messages.worker import (
    PACKET_BYTES_MAX,
    Exec,
    ExecEnded,
    ExecStarted,
    FromWorker,
    Order,
    PackageAnswer,
    Report,
    RequestPackage,
    ToWorker,
)
from galaxy.units import MIB
from tests.support.redis_server import free_port
from tests.support.timeouts import TIMEOUT_FACTOR

NOBODY = 65534
PYTHON = "/usr/bin/python3 -I -S -c"
IDLE = "exec sleep 1000000"
WAIT_S = 30.0 * TIMEOUT_FACTOR
NEVER = RestartSpec(policy="never")

SERVER = """
import http.server, os
class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        total = sum(range(20000))  # About a millisecond of work, as a service would have.
        body = b"%d" % total
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["GALAXY_PORT_HTTP"])), Hello).serve_forever()
"""


def quoted(script: str) -> str:
    """Return a shell command that executes the Python ``script``."""
    return f"exec {PYTHON} " + "'" + script.replace("'", "'\\''") + "'"


class ContainerHost:
    """The containers of one launcher, each with a uid of its own; ``close`` removes everything."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="gxh-"))
        self.cgroup_root = f"galaxy-hostile-{uuid.uuid4().hex[:8]}"
        self.runtime = Runtime(self.state, cgroup_root=self.cgroup_root, mode="full")
        self.containers: list[HostileContainer] = []
        self.seen: list[RuntimeEvent] = []
        self._uids = iter(range(*uid_ranges.claim_uids(self.state, uid_ranges.UIDS_DEFAULT, 1)))
        self.runtime.start()

    def container(self, name: str, **how: Any) -> HostileContainer:
        """Launch a container and order the program ``start`` to run, unless it is empty."""
        how = {"uid": next(self._uids), **how}
        container = HostileContainer(self, f"{name}-{len(self.containers):06x}.0", **how)
        self.containers.append(container)
        container.launch()
        return container

    def event(self, key: str, *kinds: type, timeout_s: float = WAIT_S) -> RuntimeEvent:
        """Wait for an event of one of ``kinds`` about the container ``key``."""
        end_s = time.monotonic() + timeout_s
        while True:
            for event in self.seen:
                if isinstance(event, kinds) and getattr(event, "key", key) == key:
                    self.seen.remove(event)
                    return event
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no {kinds} about {key}; seen: {self.seen}")
            select.select([self.runtime], [], [], min(left_s, 1.0))
            self.seen += self.runtime.events()

    def close(self) -> None:
        try:
            for container in self.containers:
                with contextlib.suppress(TimeoutError):
                    container.destroy()
            with contextlib.suppress(Exception):
                self.runtime.stop_launcher()
        finally:
            with contextlib.suppress(Exception):
                self.runtime.close()
            for pid in self._launchers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            tree = CgroupTree.of_host(self.cgroup_root)
            for key in tree.container_keys():
                tree.kill(key)
                tree.remove(key)
            tree.remove_root()
            shutil.rmtree(self.state, ignore_errors=True)
            uid_ranges.drop_unused_claims()

    def _launchers(self) -> Iterator[int]:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                argv = (process / "cmdline").read_bytes().split(b"\0")
                if b"galaxy.container.launcher.server" in argv and bytes(self.state) in argv:
                    yield int(process.name)


class HostileContainer:
    """One container, and a connection to its AppWorker, like an agent's."""

    def __init__(
        self,
        host: ContainerHost,
        name: str,
        *,
        start: str = IDLE,
        uid: int,
        cpu_milli: int = 300,
        memory_bytes: int = 64 * MIB,
        pids_max: int = 64,
        workspace: VolumeDemand | None = None,
        ports: dict[str, int] | None = None,
        network: str = "host",
        restart: RestartSpec = NEVER,
        package: PackageSpec | None = None,
        archive: Path | None = None,
        stop_timeout: float = 5.0,
    ) -> None:
        self.host, self.name = host, name
        self.archive = archive
        self._socket: socket.socket | None = None
        self._generation = 0
        self._request = 0
        self._stop_timeout = stop_timeout
        self.report: ObservedPod | None = None
        self.pid = 0
        self.gone = False
        task = TaskDemand(name="main", cpu_milli=cpu_milli, memory_bytes=memory_bytes, pids_max=pids_max)
        self.spec = TaskSpec(
            name="main",
            cpu=CpuSpec(millicores=cpu_milli),
            memory=MemorySpec(size=memory_bytes),
            start=start,
            restart=restart,
            package=package,
        )
        self.plan = LaunchPlan(
            container=name,
            incarnation=1,
            host="h1",
            demand=Demand(
                tasks=(task,),
                workspace=workspace
                or VolumeDemand(path="/home/work", size_bytes=16 * MIB, medium=Medium.TMPFS),
                network=network,
            ),
            ports=ports or {},
            run_uid=uid,
            run_gid=uid,
            cgroup_root=host.cgroup_root,
        )

    # ---- lifecycle

    def launch(self) -> None:
        """Launch the container, connect to its AppWorker, and order the program to run."""
        self.host.runtime.launch(self.plan)
        event = self.host.event(self.plan.key, Launched, LaunchFailed)
        assert isinstance(event, Launched), event
        self.pid = event.pid
        self.connect()
        if self.spec.start:
            self.order()

    def connect(self) -> None:
        """Connect to AppWorker, which closes an earlier connection."""
        path = self.host.runtime.socket_path(self.name, 1)
        place = os.open(path.parent, os.O_PATH)
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.connect(f"/proc/self/fd/{place}/{path.name}")
            self._socket.settimeout(WAIT_S)
        finally:
            os.close(place)

    def order(self, *, run: bool = True, **changes: Any) -> None:
        """Order the program to run, with ``changes`` to its spec, or to stop."""
        self._generation += 1
        self.spec = msgspec.structs.replace(self.spec, **changes)
        order = PodOrder(
            pod=self.name,
            incarnation=1,
            generation=self._generation,
            job=self.name.rpartition(".")[0],
            index=0,
            revision=1,
            run=run,
            tasks=(self.spec,),
            stop_timeout=self._stop_timeout,
        )
        self.send(Order(order=order))

    def destroy(self) -> None:
        """Destroy the container and wait until nothing of it is left."""
        if self.gone:
            return
        if self._socket is not None:
            self._socket.close()
        self.host.runtime.destroy(self.name, 1)
        self.host.event(self.plan.key, Destroyed)
        self.gone = True

    def ended(self) -> Ended:
        """Wait until PID 1 has ended without being destroyed."""
        event = self.host.event(self.plan.key, Ended)
        assert isinstance(event, Ended)
        return event

    @property
    def generation(self) -> int:
        """The number of the last order."""
        return self._generation

    @property
    def alive(self) -> bool:
        """Return whether the PID 1 that was launched is running."""
        return any(one.pid == self.pid for one in self.host.runtime.running())

    # ---- messages

    def send(self, packet: ToWorker, fds: tuple[int, ...] = ()) -> None:
        assert self._socket is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([encode(packet)], rights)

    def until(self, condition: Callable[[Any], object], timeout_s: float = WAIT_S) -> Any:
        """Read packets until ``condition`` is true for one; answer requests for packages."""
        assert self._socket is not None
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                data = self._socket.recv(PACKET_BYTES_MAX)
            except TimeoutError:
                break
            if not data:
                raise ConnectionError(f"{self.name}: AppWorker closed the connection")
            packet: Any = decode(data, FromWorker)  # type: ignore[arg-type]
            if isinstance(packet, Report):
                self.report = packet.pod
            if isinstance(packet, RequestPackage) and self.archive is not None:
                with open(self.archive, "rb") as archive:
                    self.send(PackageAnswer(request=packet.request), (archive.fileno(),))
            if condition(packet):
                return packet
        raise TimeoutError(f"{self.name}: not in {timeout_s:g} s; last report: {self.report}")

    def until_pod(self, condition: Callable[[ObservedPod], object], timeout_s: float = WAIT_S) -> ObservedPod:
        """Wait until ``condition`` is true for the pod's report; the last report counts too."""
        if self.report is None or not condition(self.report):
            self.until(lambda packet: isinstance(packet, Report) and condition(packet.pod), timeout_s)
        assert self.report is not None
        return self.report

    def until_state(self, state: str, timeout_s: float = WAIT_S) -> ObservedPod:
        return self.until_pod(
            lambda pod: pod.generation == self._generation and pod.state == state, timeout_s
        )

    def run(self, *argv: str, timeout_s: float = WAIT_S) -> tuple[int, str]:
        """Run a command in the container; return its status and the last MiB of its output."""
        self._request += 1
        null = os.open("/dev/null", os.O_RDWR)
        read, write = os.pipe()
        try:
            self.send(Exec(request=self._request, task="main", argv=argv), (null, write, write))
        finally:
            os.close(null)
            os.close(write)
        out = bytearray()
        end_s = time.monotonic() + timeout_s
        try:
            while select.select([read], [], [], max(0.0, end_s - time.monotonic()))[0]:
                chunk = os.read(read, 65536)
                if not chunk:
                    break
                out = (out + chunk)[-(1 << 20) :]
        finally:
            os.close(read)
        kinds = (ExecStarted, ExecEnded)

        def is_over(packet: Any) -> bool:
            ours = isinstance(packet, kinds) and packet.request == self._request
            return ours and (isinstance(packet, ExecEnded) or bool(packet.error))

        packet = self.until(is_over, timeout_s)
        assert isinstance(packet, ExecEnded), packet
        return packet.status, out.decode(errors="replace")

    def sh(self, script: str, timeout_s: float = WAIT_S) -> tuple[int, str]:
        return self.run("/bin/sh", "-c", script, timeout_s=timeout_s)

    def python(self, script: str, *arguments: str, timeout_s: float = WAIT_S) -> tuple[int, str]:
        return self.run("/usr/bin/python3", "-I", "-S", "-c", script, *arguments, timeout_s=timeout_s)

    def facts(self, script: str, *arguments: str, timeout_s: float = WAIT_S) -> Any:
        """Run a Python script in the container and return the JSON in its last line."""
        status, out = self.python(script, *arguments, timeout_s=timeout_s)
        assert status == 0, out[-3000:]
        return json.loads(out.splitlines()[-1])

    # ---- observation from outside

    def log(self, stream: str = "stdout") -> str:
        path = self.host.runtime.log_path(self.name, 1) / f"main.{stream}"
        return path.read_text(errors="replace") if path.exists() else ""

    def await_log(self, text: str, timeout_s: float = WAIT_S, *, times: int = 1) -> str:
        """Wait until the log contains ``text`` ``times`` times; return the log. Files are polled."""
        end_s = time.monotonic() + timeout_s
        while (found := self.log()).count(text) < times:
            assert time.monotonic() < end_s, (
                f"{text!r} is not in {found[-2000:]!r} {self.log('stderr')[-2000:]}"
            )
            time.sleep(0.02)
        return found

    def cgroup(self, controller: str) -> Path:
        """Return the directory of the task's cgroup: of a v1 ``controller``, or in the v2 tree."""
        top = Path("/sys/fs/cgroup")
        first = top / controller if (top / controller).is_dir() else top
        return first / self.host.cgroup_root / self.plan.key / "main"

    def await_pids(self, count: int) -> None:
        """Wait until the task has ``count`` processes; the kernel still counts reaped ones for a moment."""
        end_s = time.monotonic() + WAIT_S
        while self.pids() != count:
            assert time.monotonic() < end_s, f"{self.name} has {self.pids()} processes, not {count}"
            time.sleep(0.01)

    def pids(self) -> int:
        return int((self.cgroup("pids") / "pids.current").read_text())


def neighbour(host: ContainerHost, **how: Any) -> Neighbour:
    """Launch a container that serves HTTP, and wait until it answers."""
    port = free_port()
    container = host.container("neighbour", start=quoted(SERVER), cpu_milli=500, ports={"http": port}, **how)
    return Neighbour(container, port)


class Neighbour:
    """An ordinary HTTP service, for measuring what a hostile container does to it."""

    def __init__(self, container: HostileContainer, port: int) -> None:
        self.container, self.port = container, port
        end_s = time.monotonic() + WAIT_S
        while True:
            try:
                self.times_s(1)
                return
            except OSError:
                assert time.monotonic() < end_s, container.log("stderr")
                time.sleep(0.05)

    def times_s(self, count: int) -> list[float]:
        """Send ``count`` requests over one connection; return how long each answer took, in seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        found = []
        try:
            connection.connect()
            for _ in range(count):
                start_s = time.perf_counter()
                connection.request("GET", "/")
                answer = connection.getresponse()
                assert answer.read() == b"199990000"
                found.append(time.perf_counter() - start_s)
        finally:
            connection.close()
        return found
