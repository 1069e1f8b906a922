"""The agent's interface to its containers: request their creation and destruction, get events.

No call waits for a container: requests are packets to the launcher, outcomes arrive as events. The
launcher is started when none runs, outlives the agent, and is found again by its socket.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

import galaxy
from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.kernel import processes
from galaxy.container.launcher.client import LauncherClient
from galaxy.container.launcher.directory import SOCKET_NAME
from galaxy.container.launcher.plan import FULL, LaunchPlan
from galaxy.container.launcher.protocol import (
    PACKET_BYTES_MAX,
    ContainerRef,
    Destroy,
    Destroyed,
    Ended,
    FromLauncher,
    Launch,
    Launched,
    LauncherLost,
    LaunchFailed,
    Present,
    SnapshotComplete,
    Stop,
    StopRefused,
)
from galaxy.container.limits import limits_of
from galaxy.container.usage import UsageMeter
from galaxy.errors import BadMessage, Conflict, HostError, Unreachable, UsageError
from galaxy.ids import container_key
from galaxy.model.base import check_wire, encode
from galaxy.model.messages.container import Demand
from galaxy.statemachine.backoff import Backoff

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
RECONNECT_S: Final = 0.2
RECONNECT_S_MAX: Final = 10.0
RECONNECTS_MAX: Final = 10
"""How many launchers in a row may end before they report what they have."""

RuntimeEvent = Launched | LaunchFailed | Ended | Destroyed | LauncherLost


class InitProcess(ContainerRef, frozen=True, kw_only=True):
    """The PID 1 of a running container; ``start_ticks`` is field 22 of its stat file."""

    pid: int
    start_ticks: int


class Runtime:
    """The containers of one agent; for use from one thread at a time, except ``meter``."""

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
        self._client = LauncherClient(self._state, cgroup_root=cgroup_root, mode=mode, entry=entry)
        self._events: deque[RuntimeEvent] = deque()
        self._running: dict[str, InitProcess] = {}
        self._launches: dict[str, Launch] = {}
        """Launches without an outcome yet; sent again after every connect."""
        self._destroys: dict[str, Destroy] = {}
        """Destructions without an outcome yet; sent again like launches."""
        self._cgroups: CgroupTree | None = None
        self.meter = UsageMeter(self._state / "c", None)
        """Measures containers, from any thread."""
        self._snapshot: SnapshotComplete | None = None
        self._is_stopping = False
        self._refused: StopRefused | None = None
        self._reconnect_backoff = Backoff(RECONNECT_S, RECONNECT_S_MAX)
        self._reconnect_at_s = 0.0
        self._reconnects_left = RECONNECTS_MAX

    def start(self) -> None:
        """Connect to the launcher of this state directory or start one, and read which containers it has.

        Raises:
            HostError: the launcher exits at once (its log says why), or its messages cannot be read.
            Unreachable: it does not answer in time.
        """
        for name in ("c", "logs", "garbage"):
            (self._state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._mode == FULL:
            self._cgroups = CgroupTree.of_host(self._cgroup_root)
            self.meter = UsageMeter(self._state / "c", self._cgroups)
        deadline = time.monotonic() + START_TIMEOUT_S
        self._connect()
        snapshot = self._await_snapshot(deadline)
        if snapshot.release not in ("", galaxy.__version__):
            self._client.send(self._client.renewal())
            while self._client.is_connected():
                self._wait(deadline, "changed its release")
                self._receive(restart=False)
            self._events.clear()  # The next snapshot has everything.
            self._running.clear()
            self._connect()
            snapshot = self._await_snapshot(deadline)
        try:
            check_wire(snapshot.wire)
        except BadMessage as error:
            release = snapshot.release or "unknown"
            raise HostError(
                f"cannot use the launcher of {self._state}: pid {snapshot.pid}, release {release}",
                details=(error.message, "its containers run on"),
                hint=error.hint,
            ) from error

    def fileno(self) -> int:
        """Return a descriptor that is readable when ``events`` has something to do; see ``wake_s`` too."""
        return self._client.fileno()

    def wake_s(self) -> float | None:
        """Return when to call ``events`` even if ``fileno`` is not readable, by the monotonic clock."""
        return None if self._client.is_connected() else self._reconnect_at_s

    def launch(self, plan: LaunchPlan) -> None:
        """Request a container; ``Launched`` or ``LaunchFailed`` follows as an event.

        Raises:
            UsageError: the plan is too long for the launcher.
        """
        plan = msgspec.structs.replace(
            plan,
            directory=plan.directory or str(self._state / "c" / plan.key),
            log_directory=plan.log_directory or str(self._state / "logs" / plan.key),
            cgroup_root=self._cgroup_root,
            mode=self._mode,
        )
        request = Launch(plan=plan)
        if (length := len(encode(request))) > PACKET_BYTES_MAX:
            raise UsageError(
                f"its plan has {length} bytes; the launcher takes {PACKET_BYTES_MAX}",
                hint="use fewer or shorter names of tasks, volumes and ports",
            )
        self._launches[plan.key] = request
        self._client.send(request)

    def destroy(self, container: str, incarnation: int) -> None:
        """Request a container's destruction; ``Destroyed`` follows when nothing of it is left."""
        request = Destroy(container=container, incarnation=incarnation)
        self._launches.pop(request.key, None)
        self._destroys[request.key] = request
        self._client.send(request)

    def resize(self, container: str, incarnation: int, demand: Demand) -> tuple[str, ...]:
        """Set the limits of a running container to those of ``demand``; from any thread, one at a time.

        Returns which memory limits stay as they were, because more is in use. A host without cgroups has
        no limits to change.

        Raises:
            OSError: the kernel refused, or the container is gone.
        """
        if self._cgroups is None:
            return ()
        return self._cgroups.resize(container_key(container, incarnation), limits_of(demand))

    def events(self) -> list[RuntimeEvent]:
        """Return what has happened since the last call, without waiting."""
        self._receive(restart=True)
        events = list(self._events)
        self._events.clear()
        return events

    def running(self) -> list[InitProcess]:
        """Return the PID 1s that run now, the oldest first."""
        return [
            each for each in self._running.values() if processes.start_ticks(each.pid) == each.start_ticks
        ]

    def socket_path(self, container: str, incarnation: int) -> Path:
        """Return the path of an AppWorker's socket, which may be too long for connect(2)."""
        return self._directory(container_key(container, incarnation)) / SOCKET_NAME

    def log_path(self, container: str, incarnation: int) -> Path:
        """Return the directory of a container's logs, which outlives it."""
        return self._state / "logs" / container_key(container, incarnation)

    def stop_launcher(self) -> None:
        """Stop the launcher, which has no containers, once its garbage is deleted.

        Raises:
            Conflict: there are containers.
            Unreachable: it does not exit in time.
        """
        if not self._client.is_connected():
            return
        self._is_stopping, self._refused = True, None
        self._client.send(Stop())
        deadline = time.monotonic() + STOP_TIMEOUT_S
        try:
            while self._client.is_connected():
                self._wait(deadline, "stopped")
                self._receive(restart=False)
                self._raise_if_refused()
        finally:
            self._is_stopping = False
        self._client.await_exit()

    def close(self) -> None:
        """Disconnect from the launcher; it and its containers keep running."""
        self._client.close()

    # ---- messages

    def _connect(self) -> None:
        self._snapshot = None
        self._client.connect()
        for launch in self._launches.values():
            self._client.send(launch)
        for destroy in self._destroys.values():
            self._client.send(destroy)

    def _await_snapshot(self, deadline: float) -> SnapshotComplete:
        while self._snapshot is None:
            self._wait(deadline, "started")
            self._receive(restart=False)
            if not self._client.is_connected():
                raise HostError(
                    "cannot start the launcher: it ended at once",
                    details=self._client.log_tail(),
                    hint="galaxy doctor",
                )
        return self._snapshot

    def _receive(self, *, restart: bool) -> None:
        """Apply the messages that have arrived; with ``restart`` a lost launcher is replaced.

        Raises:
            HostError: no launcher stays alive.
        """
        was_connected = self._client.is_connected()
        for message in self._client.receive():
            self._apply(message)
        if self._client.is_connected() or self._is_stopping or not restart:
            return
        if was_connected and self._snapshot is not None:
            self._events.append(LauncherLost())
        if was_connected:
            self._reconnect_at_s = time.monotonic() + (
                self._reconnect_backoff.next_s() if self._snapshot is None else 0.0
            )
        if time.monotonic() >= self._reconnect_at_s:
            self._reconnect()

    def _reconnect(self) -> None:
        """Connect to a launcher, or start one, after the last one was lost."""
        self._reconnects_left -= 1
        if self._reconnects_left < 0:
            raise HostError(
                f"cannot start the launcher: {RECONNECTS_MAX} in a row ended at once",
                details=self._client.log_tail(),
                hint="galaxy doctor",
            )
        try:
            self._connect()
        except OSError:
            self._reconnect_at_s = time.monotonic() + self._reconnect_backoff.next_s()

    def _apply(self, message: FromLauncher) -> None:
        if isinstance(message, Present):
            self._add_running(message)
        elif isinstance(message, Launched):
            self._add_running(message)
            if self._launches.pop(message.key, None) is not None:
                self._events.append(message)
        elif isinstance(message, LaunchFailed):
            self._launches.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, Ended):
            self._running.pop(message.key, None)
            self._launches.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, Destroyed):
            self._running.pop(message.key, None)
            self._destroys.pop(message.key, None)
            self._events.append(message)
        elif isinstance(message, SnapshotComplete):
            self._snapshot = message
            self._reconnect_backoff.reset()
            self._reconnects_left = RECONNECTS_MAX
        elif isinstance(message, StopRefused):
            self._refused = message

    def _add_running(self, message: Present | Launched) -> None:
        self._running[message.key] = InitProcess(
            container=message.container,
            incarnation=message.incarnation,
            pid=message.pid,
            start_ticks=message.start_ticks,
        )

    def _wait(self, deadline: float, what: str) -> None:
        if not self._client.wait(deadline - time.monotonic()):
            raise Unreachable(f"cannot be sure that the launcher has {what}: it does not answer")

    def _raise_if_refused(self) -> None:
        if self._refused is not None:
            raise Conflict(
                f"cannot stop the launcher: {self._refused.containers} containers are left",
                hint="destroy them first",
            )

    def _directory(self, key: str) -> Path:
        return self._state / "c" / key
