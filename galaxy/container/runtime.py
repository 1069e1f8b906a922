"""What an agent uses: ask for containers and for their end, hear what became of it, measure.

Nothing here waits for a container: requests are packets to the launcher, outcomes come as events.
The launcher is started when there is none, outlives the agent, and is found again by its socket.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

import galaxy
from galaxy.container.cgroup.tree import CgroupTree, Usage
from galaxy.container.fs.volumes import plain_used_bytes
from galaxy.container.kernel import processes
from galaxy.container.launcher.create import PLAN_NAME, SOCKET_NAME
from galaxy.container.launcher.plan import FULL, LaunchPlan, container_key
from galaxy.container.launcher.protocol import (
    PACKET_BYTES_MAX,
    Destroy,
    Destroyed,
    Ended,
    FromLauncher,
    Launch,
    Launched,
    LauncherLost,
    LaunchFailed,
    Life,
    Present,
    Renew,
    Settled,
    Stop,
    StopRefused,
    ToLauncher,
)
from galaxy.errors import BadMessage, Conflict, HostError, Unreachable
from galaxy.model.base import Struct, check_wire, decode, encode
from galaxy.model.jobspec.spec import Medium

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
_LOG_BYTES_MAX: Final = 1 << 20
_SOCKET_BUFFER: Final = 4 << 20
_PLAIN_ENTRIES_MAX: Final = 20_000
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
"""All that the launcher, and so every AppWorker, inherits: no credential is in it."""

Event = Launched | LaunchFailed | Ended | Destroyed | LauncherLost


class Living(Life, frozen=True, kw_only=True):
    """A container that is there; ``start_ticks`` is field 22 of its PID 1's stat file."""

    pid: int
    start_ticks: int


class ContainerUsage(Struct, frozen=True, kw_only=True):
    """What one container has used: CPU since its birth, the rest now. Nanoseconds, bytes, counts."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    pids: int = 0
    oom_kills: int = 0
    disk_bytes: int = 0


class Runtime:
    """The containers of one agent, by way of its launcher; to be used from one thread."""

    def __init__(
        self,
        state_dir: Path,
        *,
        cgroup_root: str,
        mode: str,
        entry: str = "galaxy.worker_entry.main:run",
    ) -> None:
        self._state = Path(state_dir).resolve()
        self._cgroup_root = cgroup_root
        self._mode = mode
        self._entry = entry
        self._poll = select.epoll()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: deque[bytes] = deque()
        self._events: deque[Event] = deque()
        self._living: dict[str, Living] = {}
        self._launches: dict[str, Launch] = {}
        self._destroys: dict[str, Destroy] = {}
        self._plans: dict[str, LaunchPlan] = {}
        self._cgroups: CgroupTree | None = None
        self._settled: Settled | None = None
        self._stopping = False
        self._refused: StopRefused | None = None

    def start(self) -> None:
        """Find the living launcher of this state directory or start one, and learn what is there.

        Raises:
            HostError: the launcher ends at once; its log says why.
            Unreachable: it does not answer in time.
        """
        for name in ("c", "logs", "garbage"):
            (self._state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._mode == FULL:
            self._cgroups = CgroupTree.of_host(self._cgroup_root)
        until = time.monotonic() + START_TIMEOUT_S
        self._connect()
        found = self._meet(until)
        if found.release not in ("", galaxy.__version__):
            ours = Renew(python=sys.executable, arguments=self._arguments(), environment=_environment())
            self._send(ours)
            while self._socket is not None:
                self._wait(until, "become ours")
                self._pump(restart=False)
            self._events.clear()  # All of it is said again.
            self._living.clear()
            self._connect()
            found = self._meet(until)
        try:
            check_wire(found.wire)
        except BadMessage as error:
            release = found.release or "unknown"
            raise HostError(
                f"cannot use the launcher of {self._state}: pid {found.pid}, release {release}",
                details=(error.message, "its containers run on"),
                hint=error.hint,
            ) from error

    def _meet(self, until: float) -> Settled:
        """Wait for all that the launcher has to say on connecting."""
        while self._settled is None:
            self._wait(until, "started")
            self._pump(restart=False)
            if self._socket is None:
                raise HostError(
                    "cannot start the launcher: it ended at once",
                    details=self._last_words(),
                    hint="galaxy doctor",
                )
        return self._settled

    def fileno(self) -> int:
        """Return a descriptor that is readable when ``events`` has something to do."""
        return self._poll.fileno()

    def launch(self, plan: LaunchPlan) -> None:
        """Ask for a container; its ``Launched`` or ``LaunchFailed`` comes as an event."""
        plan = msgspec.structs.replace(
            plan,
            directory=plan.directory or str(self._state / "c" / plan.key),
            log_directory=plan.log_directory or str(self._state / "logs" / plan.key),
            cgroup_root=self._cgroup_root,
            mode=self._mode,
        )
        request = Launch(plan=plan)
        self._launches[plan.key] = request
        self._plans[plan.key] = plan
        self._send(request)

    def destroy(self, container: str, incarnation: int) -> None:
        """Ask for a container's end; its ``Destroyed`` comes when nothing of it is left."""
        request = Destroy(container=container, incarnation=incarnation)
        self._launches.pop(request.key, None)
        self._destroys[request.key] = request
        self._send(request)

    def events(self) -> list[Event]:
        """Return what has happened since the last call; never waits."""
        self._pump(restart=True)
        events = list(self._events)
        self._events.clear()
        return events

    def living(self) -> list[Living]:
        """Return what is really there, in order of birth."""
        return [one for one in self._living.values() if processes.start_ticks(one.pid) == one.start_ticks]

    def socket_path(self, container: str, incarnation: int) -> Path:
        """Return where the AppWorker of a container listens; it may be longer than a socket's name can be."""
        return self._state / "c" / container_key(container, incarnation) / SOCKET_NAME

    def log_path(self, container: str, incarnation: int) -> Path:
        """Return where a container's logs are; they outlive it."""
        return self._state / "logs" / container_key(container, incarnation)

    def usage(self, container: str, incarnation: int) -> ContainerUsage:
        """Measure one container now; zeros for what this mode cannot measure, or when it is gone."""
        key = container_key(container, incarnation)
        found = Usage()
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                found = self._cgroups.usage(key)
        return ContainerUsage(
            cpu_ns=found.cpu_ns,
            memory_bytes=found.memory_bytes,
            pids=found.pids,
            oom_kills=found.oom_kills,
            disk_bytes=self._disk_bytes(key),
        )

    def stop_launcher(self) -> None:
        """End the launcher, once its containers are gone and its garbage is deleted.

        Raises:
            Conflict: containers are left.
            Unreachable: it does not end in time.
        """
        if not self._is_connected():
            return
        self._stopping, self._refused = True, None
        self._send(Stop())
        until = time.monotonic() + STOP_TIMEOUT_S
        try:
            while self._is_connected():
                self._wait(until, "stopped")
                self._pump(restart=False)
                self._raise_if_refused()
        finally:
            self._stopping = False
        if self._process is not None:
            self._process.wait(timeout=STOP_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        """Let go of the launcher; it and its containers live on."""
        self._disconnect()
        self._poll.close()

    # ---- the connection

    def _is_connected(self) -> bool:
        return self._socket is not None

    def _connect(self) -> None:
        path = self._state / "launcher.sock"
        self._settled = None
        place = os.open(self._state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            short = f"/proc/self/fd/{place}/{path.name}"
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                sock.connect(short)
            except (FileNotFoundError, ConnectionRefusedError):
                self._spawn(path, short)
                sock.connect(short)
        finally:
            os.close(place)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._socket = sock
        self._poll.register(sock, select.EPOLLIN)
        for launch in self._launches.values():
            self._send(launch)
        for destroy in self._destroys.values():
            self._send(destroy)

    def _spawn(self, path: Path, short: str) -> None:
        """Bind the socket here and hand it over: whoever connects waits in its queue until it is served."""
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            old = os.umask(0o177)
            try:
                listener.bind(short)
            finally:
                os.umask(old)
            listener.listen(4)
            log = self._state / "launcher.log"
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size > _LOG_BYTES_MAX:
                    log.rename(self._state / "launcher.log.1")
            if self._process is not None:
                self._process.wait(timeout=STOP_TIMEOUT_S)  # The one that was lost.
            with open(log, "ab") as words:
                self._process = subprocess.Popen(
                    [sys.executable, *self._arguments(), "--listen", str(listener.fileno())],
                    stdin=subprocess.DEVNULL, stdout=words, stderr=words, pass_fds=(listener.fileno(),),
                    start_new_session=True, cwd="/",
                    env=_environment(),
                )  # fmt: skip

    def _arguments(self) -> tuple[str, ...]:
        return (
            "-m", "galaxy.container.launcher.server", "--state", str(self._state),
            "--cgroup-root", self._cgroup_root, "--mode", self._mode, "--entry", self._entry,
        )  # fmt: skip

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
        self._outbox.clear()

    def _send(self, message: ToLauncher) -> None:
        if self._socket is None:
            return  # It is said again on connecting.
        self._outbox.append(encode(message))
        self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._outbox:
                self._socket.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            self._poll.modify(self._socket, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            return  # Its end is seen on reading, after what it still had to say.
        self._poll.modify(self._socket, select.EPOLLIN)

    def _pump(self, *, restart: bool) -> None:
        self._flush()
        while self._socket is not None:
            try:
                packet = self._socket.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if packet:
                self._hear(packet)
                continue
            self._disconnect()
            if restart and not self._stopping:
                self._events.append(LauncherLost())
                self._connect()

    def _hear(self, packet: bytes) -> None:
        try:
            message: FromLauncher = decode(packet, FromLauncher)  # type: ignore[arg-type]
        except BadMessage:
            return  # Of another version's launcher: what matters is said again in what we know.
        if isinstance(message, Present):
            self._lives(message)
        elif isinstance(message, Launched):
            self._lives(message)
            if self._launches.pop(message.key, None) is not None:
                self._events.append(message)
        elif isinstance(message, LaunchFailed):
            self._launches.pop(message.key, None)
            self._plans.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, Ended):
            self._living.pop(message.key, None)
            self._launches.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, Destroyed):
            self._living.pop(message.key, None)
            self._plans.pop(message.key, None)
            self._destroys.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, Settled):
            self._settled = message
        elif isinstance(message, StopRefused):
            self._refused = message

    def _lives(self, found: Present | Launched) -> None:
        self._living[found.key] = Living(
            container=found.container,
            incarnation=found.incarnation,
            pid=found.pid,
            start_ticks=found.start_ticks,
        )

    def _wait(self, until: float, what: str) -> None:
        left = until - time.monotonic()
        if left <= 0 or not self._poll.poll(left):
            raise Unreachable(f"cannot be sure that the launcher has {what}: it does not answer")

    def _raise_if_refused(self) -> None:
        if self._refused is not None:
            raise Conflict(
                f"cannot stop the launcher: {self._refused.containers} containers are left",
                hint="destroy them first",
            )

    def _last_words(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self._state / "launcher.log").read_text(errors="replace").splitlines()[-3:]
        return []

    # ---- measuring

    def _disk_bytes(self, key: str) -> int:
        """Add up what disk volumes hold: by their file systems, or by looking where they are plain."""
        living = self._living.get(key)
        directory = self._state / "c" / key
        total = 0
        for index, (path, medium) in enumerate(self._volumes(key)):
            plain = directory / f"v{index}"
            if plain.is_dir():
                total += plain_used_bytes(str(plain), _PLAIN_ENTRIES_MAX)
            elif living is not None and medium is not Medium.TMPFS:
                with contextlib.suppress(OSError):
                    stat = os.statvfs(f"/proc/{living.pid}/root{path}")
                    total += (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        return total

    def _volumes(self, key: str) -> list[tuple[str, Medium]]:
        plan = self._plans.get(key)
        if plan is None:
            plan = processes.recall(str(self._state / "c" / key / PLAN_NAME), LaunchPlan)
            if plan is None:
                return []
            self._plans[key] = plan
        return [(volume.path, volume.medium) for volume in plan.volumes]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
