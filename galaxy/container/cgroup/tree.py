"""The cgroups of containers: made, entered, measured, killed and removed, on v1, v2 or both.

Layout, in every hierarchy: ``<mount>/<cgroup_root>/<container>_<incarnation>/{init,<task>...}``.
On v1 each controller has its hierarchy, PID 1 is in the container's own cgroup instead of ``init``
(v2 alone wants processes in leaves), and the v2 tree beside it, if any, serves to list and kill.
Cgroup paths are strings: this is on the way of every launch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from galaxy.container.cgroup.controller import Controller
from galaxy.container.cgroup.cpu import CpuV1, CpuV2
from galaxy.container.cgroup.detect import Hierarchies, detect
from galaxy.container.cgroup.devices import DevicesV1, DevicesV2
from galaxy.container.cgroup.files import Files, field
from galaxy.container.cgroup.io import BlkioV1, IoV2
from galaxy.container.cgroup.memory import MemoryV1, MemoryV2
from galaxy.container.cgroup.pids import Pids
from galaxy.container.launcher.plan import ContainerLimits
from galaxy.errors import HostError
from galaxy.model.messages.worker import TaskCgroup

UNIFIED: Final = "unified"
INIT: Final = "init"
_FREEZE_WAIT_S: Final = 1.0
_FREEZE_POLL_S: Final = 0.001


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one container has used: CPU since its birth, the rest now. Nanoseconds, bytes, counts."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    pids: int = 0
    oom_kills: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenCgroups:
    """Open files of a new container's cgroups, to enter by writing ``0``; the caller closes them.

    ``init`` is PID 1's to write, when all mounting is done: inside it block devices are barred.
    """

    init: tuple[int, ...]
    tasks: tuple[TaskCgroup, ...]

    shared: int
    """How many of ``init``, from the first, no task has of its own: programs are in the container's."""

    fds: list[int]
    """All of them, to close."""


class CgroupTree:
    """All containers' cgroups of one agent (``root``) on one host."""

    def __init__(self, hierarchies: Hierarchies, root: str, *, files: Files | None = None) -> None:
        self.version = hierarchies.version
        self.files = files or Files()
        if not self.version:
            raise HostError(
                "cannot limit containers: this host has no cgroup controllers cpu, memory and pids",
                hint="mount cgroup2 at /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
            )
        self._mounts = _mounts(hierarchies)
        self._roots = {name: os.path.join(mount, root) for name, mount in self._mounts.items()}
        self._controllers = self._choose(hierarchies)
        self._per_task = {
            name for c in self._controllers if c.per_task for name in [self._hierarchy_of(c)]
        } | ({UNIFIED} & self._roots.keys())
        self._memory = next(c for c in self._controllers if isinstance(c, MemoryV1 | MemoryV2))
        # Where processes are listed: the v2 tree when there is one, since its kill is the best.
        self._listing = UNIFIED if UNIFIED in self._roots else "pids"

    @classmethod
    def of_host(cls, root: str) -> CgroupTree:
        """Return the tree of this host.

        Raises:
            HostError: it has no usable controllers.
        """
        return cls(detect(), root)

    @property
    def devices_refused(self) -> str:
        """Return why devices are not guarded by the kernel here, after ``prepare``; empty when they are."""
        for controller in self._controllers:
            if isinstance(controller, DevicesV1 | DevicesV2):
                return controller.refused
        return "no devices controller"

    def prepare(self) -> None:
        """Make the root in every hierarchy and hand controllers down to it; again is the same as once.

        Raises:
            OSError: without the right to, or when a v2 parent has processes of its own that stay.
        """
        for name, path in self._roots.items():
            if self.version == "v2":
                self._hand_down(self._mounts[name])
            parts = path[len(self._mounts[name]) :].strip("/").split("/")
            at = self._mounts[name]
            for part in parts:
                at = os.path.join(at, part)
                self.files.make(at)
                if self.version == "v2":
                    self._hand_down(at)
        for controller in self._controllers:
            controller.prepare_root(self._roots[self._hierarchy_of(controller)])
        self._controllers = [c for c in self._controllers if self._works(c)]

    def make(self, key: str, limits: ContainerLimits) -> None:
        """Make one container's cgroups with every limit set before anybody is inside.

        Raises:
            OSError: named by the file that refused.
        """
        files = self.files
        names = [task.name for task in limits.tasks]
        for name, root in self._roots.items():
            path = f"{root}/{key}"
            files.make(path)
            if name in self._per_task:
                if self.version == "v2":
                    self._hand_down(path)
                for child in names if self.version == "v1" else (INIT, *names):
                    files.make(f"{path}/{child}")
        for controller in self._controllers:
            path = f"{self._roots[self._hierarchy_of(controller)]}/{key}"
            controller.limit_container(path, limits)
            if controller.per_task:
                for task in limits.tasks:
                    controller.limit_task(f"{path}/{task.name}", task)

    def open(self, key: str, limits: ContainerLimits) -> OpenCgroups:
        """Open what PID 1 enters and what it hands its programs; see ``TaskCgroup``."""
        opened: list[int] = []

        def grab(path: str, flags: int = os.O_RDWR) -> int:
            opened.append(os.open(path, flags | os.O_CLOEXEC))
            return opened[-1]

        order = sorted(self._per_task, key=lambda name: (name != self._listing, name))
        try:
            place = INIT if self.version == "v2" else "."
            roots = sorted(self._roots, key=lambda name: name in self._per_task)
            init = tuple(grab(f"{self._roots[name]}/{key}/{place}/cgroup.procs") for name in roots)
            tasks = tuple(
                TaskCgroup(
                    name=task.name,
                    procs_fds=tuple(
                        grab(f"{self._roots[name]}/{key}/{task.name}/cgroup.procs") for name in order
                    ),
                    oom_fd=grab(
                        self._memory.oom_file(f"{self._of('memory')}/{key}/{task.name}"), os.O_RDONLY
                    ),
                    pids_fd=grab(f"{self._of('pids')}/{key}/{task.name}/pids.max"),
                    pids_max=task.pids_max,
                )
                for task in limits.tasks
            )
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        shared = len(self._roots.keys() - self._per_task)
        return OpenCgroups(init=init, tasks=tasks, shared=shared, fds=opened)

    def names(self) -> list[str]:
        """Return the names of all containers that have a cgroup in any hierarchy, sorted."""
        found = {name for root in self._roots.values() for name in self.files.children(root)}
        return sorted(name for name in found if "_" in name)

    def pids(self, key: str) -> list[int]:
        """Return every process inside, sorted."""
        base = f"{self._roots[self._listing]}/{key}"
        found = set(self.files.pids(base))
        for child in self.files.children(base):
            found.update(self.files.pids(f"{base}/{child}"))
        return sorted(found)

    def oom_kills(self, key: str) -> int:
        """Return how many processes the kernel has killed for memory, in the container and its tasks."""
        base = f"{self._of('memory')}/{key}"
        total = 0
        for path in (base, *(f"{base}/{child}" for child in self.files.children(base))):
            with contextlib.suppress(FileNotFoundError):
                total += field(self.files.read(self._memory.oom_file(path)), "oom_kill")
        return total

    def usage(self, key: str) -> Usage:
        """Measure one container.

        Raises:
            FileNotFoundError: it is gone.
        """
        if self.version == "v2":
            stat = self.files.read(f"{self._of('cpu')}/{key}/cpu.stat")
            cpu_ns = field(stat, "usage_usec") * 1000
        elif "cpuacct" in self._roots:
            cpu_ns = int(self.files.read(f"{self._roots['cpuacct']}/{key}/cpuacct.usage"))
        else:
            cpu_ns = 0
        return Usage(
            cpu_ns=cpu_ns,
            memory_bytes=self._memory.used_bytes(f"{self._of('memory')}/{key}"),
            pids=int(self.files.read(f"{self._of('pids')}/{key}/pids.current")),
            oom_kills=self.oom_kills(key),
        )

    def kill(self, key: str) -> None:
        """Kill every process inside; whoever forks meanwhile is killed too. Never reuse the cgroup."""
        unified = f"{self._roots[UNIFIED]}/{key}/cgroup.kill" if UNIFIED in self._roots else ""
        if unified and self.files.has(unified):
            with contextlib.suppress(FileNotFoundError):
                self.files.write(unified, 1)
            return
        frozen = self._freeze(key)
        for pid in self.pids(key):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if frozen:
            with contextlib.suppress(FileNotFoundError):
                self.files.write(frozen, "THAWED")  # A frozen process dies only now.

    def remove(self, key: str) -> bool:
        """Remove every cgroup of a container; return False while somebody still is inside."""
        gone = True
        for root in self._roots.values():
            base = f"{root}/{key}"
            try:
                for child in self.files.children(base):
                    self.files.remove(f"{base}/{child}")
                self.files.remove(base)
            except OSError:
                gone = False
        return gone

    def remove_root(self) -> None:
        """Remove the root itself where no container is left."""
        for name, path in self._roots.items():
            mount = self._mounts[name]
            while path != mount:
                try:
                    self.files.remove(path)
                except OSError:
                    break
                path = os.path.dirname(path)

    def _of(self, hierarchy: str) -> str:
        return self._roots[UNIFIED if self.version == "v2" else hierarchy]

    def _hierarchy_of(self, controller: Controller) -> str:
        return UNIFIED if self.version == "v2" else controller.hierarchy

    def _choose(self, hierarchies: Hierarchies) -> list[Controller]:
        files = self.files
        if self.version == "v2":
            chosen: list[Controller] = [CpuV2(files), MemoryV2(files), Pids(files), DevicesV2(files)]
            return chosen + [IoV2(files)] * ("io" in hierarchies.v2_controllers)
        swap = _host_has_swap()
        chosen = [CpuV1(), MemoryV1(files, swap=swap), Pids(files)]
        if "devices" in self._roots:
            chosen.append(DevicesV1())
        if "blkio" in self._roots:
            chosen.append(BlkioV1(files, "blkio.bfq.weight"))
        return chosen

    def _works(self, controller: Controller) -> bool:
        # An io weight is a file that only exists where the kernel has a scheduler for it.
        if not isinstance(controller, BlkioV1 | IoV2):
            return True
        root = self._roots[self._hierarchy_of(controller)]
        names = ("blkio.bfq.weight",) if isinstance(controller, BlkioV1) else ("io.weight", "io.bfq.weight")
        return any(self.files.has(f"{root}/{name}") for name in names)

    def _hand_down(self, path: str) -> None:
        """Enable our controllers for the children of a v2 cgroup, moving processes into a leaf if need be."""
        available = set(self.files.read(f"{path}/cgroup.controllers").split())
        enabled = set(self.files.read(f"{path}/cgroup.subtree_control").split())
        wanted = sorted(({c.hierarchy for c in self._controllers} & available) - enabled)
        if not wanted:
            return
        command = " ".join(f"+{name}" for name in wanted)
        try:
            self.files.write(f"{path}/cgroup.subtree_control", command)
        except OSError:
            # "No internal processes": only the host's true root, which has no cgroup.type, is exempt.
            if path != self._mounts[UNIFIED] or not self.files.has(f"{path}/cgroup.type"):
                raise
            leaf = f"{path}/galaxy-host"
            self.files.make(leaf)
            for pid in self.files.pids(path):
                with contextlib.suppress(ProcessLookupError):
                    self.files.write(f"{leaf}/cgroup.procs", pid)
            self.files.write(f"{path}/cgroup.subtree_control", command)

    def _freeze(self, key: str) -> str:
        """Freeze a container by v1's freezer; return the file to thaw by, empty without that."""
        if "freezer" not in self._roots:
            return ""
        state = f"{self._roots['freezer']}/{key}/freezer.state"
        try:
            self.files.write(state, "FROZEN")
            until = time.monotonic() + _FREEZE_WAIT_S
            while self.files.read(state).strip() != "FROZEN" and time.monotonic() < until:
                time.sleep(_FREEZE_POLL_S)  # The freezer has no event to wait for.
        except FileNotFoundError:
            return ""
        return state


def _mounts(hierarchies: Hierarchies) -> dict[str, str]:
    if hierarchies.version == "v2":
        return {UNIFIED: hierarchies.v2}
    useful: Sequence[str] = ("cpu", "cpuacct", "memory", "pids", "devices", "blkio")
    mounts = {name: hierarchies.v1[name] for name in useful if name in hierarchies.v1}
    if hierarchies.v2 and os.path.exists(os.path.join(hierarchies.v2, "cgroup.procs")):
        return {UNIFIED: hierarchies.v2, **mounts}
    if "freezer" in hierarchies.v1:
        mounts["freezer"] = hierarchies.v1["freezer"]
    return mounts


def _host_has_swap() -> bool:
    with open("/proc/swaps") as file:
        return len(file.readlines()) > 1
