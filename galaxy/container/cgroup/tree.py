"""The cgroups of containers on v1, v2 or both: create, enter, measure, kill and remove.

Layout, in every hierarchy: ``<mount>/<cgroup_root>/<container>_<incarnation>/{init,<task>...}``.
On v1 each controller has its own hierarchy, and PID 1 is in the container's own cgroup instead of
``init`` (only v2 requires that processes are in leaves). If a v2 tree is mounted beside v1 hierarchies,
it is used to list and kill processes. Cgroup paths are strings, not ``Path`` objects, because every
launch handles dozens of them.

Other programs may have cgroups below the same root, with any names. A container's cgroups carry a mark
(``marks``), and nothing without it is listed, killed or removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Final

from galaxy.container.cgroup import marks, v1
from galaxy.container.cgroup.controller import Controller, OrderedController
from galaxy.container.cgroup.controllers import UNIFIED, can_limit, controllers_of, mounts_of
from galaxy.container.cgroup.detect import Hierarchies, detect
from galaxy.container.cgroup.devices import DevicesV1, DevicesV2
from galaxy.container.cgroup.files import Files, field
from galaxy.container.cgroup.freezer import freeze, thaw
from galaxy.container.cgroup.memory import MemoryV1, MemoryV2
from galaxy.container.limits import ContainerLimits
from galaxy.errors import HostError
from galaxy.model.messages.worker import TaskCgroup

INIT: Final = "init"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one container uses: CPU time since its creation, OOM kills since then, the rest now."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    pids: int = 0
    oom_kills: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenCgroups:
    """Open files of a new container's cgroups, for the caller to close; a process enters by writing ``0``."""

    init: tuple[int, ...]
    """``cgroup.procs`` files that PID 1 enters, after all mounting: inside, block devices are denied."""

    tasks: tuple[TaskCgroup, ...]

    shared: int
    """How many of ``init``, counted from the first, belong to hierarchies without task cgroups.

    A program stays in the container's own cgroup there, so it must enter these too.
    """

    fds: list[int]
    """All of the descriptors above, to close."""


class CgroupTree:
    """The cgroups of all containers of one agent, below ``root`` in every hierarchy.

    ``owner`` is the state directory of the launcher, which is written into the mark of each container's
    cgroups. Without an owner the tree covers the containers of all owners.
    """

    def __init__(
        self, hierarchies: Hierarchies, root: str, *, owner: str = "", files: Files | None = None
    ) -> None:
        self._owner = owner
        self._can_mark = True
        self.version = hierarchies.version
        self.files = files or Files()
        if not self.version:
            raise HostError(
                "cannot limit containers: this host has no cgroup controllers cpu, memory and pids",
                hint="mount cgroup2 at /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
            )
        self._mounts = mounts_of(hierarchies)
        self._roots = {name: os.path.join(mount, root) for name, mount in self._mounts.items()}
        self._controllers = controllers_of(hierarchies, self._mounts, self.files)
        self._per_task = {
            name for c in self._controllers if c.per_task for name in [self._hierarchy_of(c)]
        } | ({UNIFIED} & self._roots.keys())
        self._memory = next(c for c in self._controllers if isinstance(c, MemoryV1 | MemoryV2))
        # Processes are listed where they are killed: in the v2 tree if there is one, for its cgroup.kill.
        self._listing = UNIFIED if UNIFIED in self._roots else "pids"

    @classmethod
    def of_host(cls, root: str, *, owner: str = "") -> CgroupTree:
        """Return the tree of this host.

        Raises:
            HostError: the host has no usable controllers.
        """
        return cls(detect(), root, owner=owner)

    @property
    def devices_refused(self) -> str:
        """Return why the kernel does not enforce device rules, after ``prepare``; empty if it does."""
        for controller in self._controllers:
            if isinstance(controller, DevicesV1 | DevicesV2):
                return controller.refused
        return "no devices controller"

    def prepare(self) -> None:
        """Create the root in every hierarchy and delegate controllers to it; idempotent.

        Raises:
            OSError: no permission, or a v2 parent has processes that cannot be moved.
        """
        for name, path in self._roots.items():
            if self.version == "v2":
                self._delegate(self._mounts[name])
            parts = path[len(self._mounts[name]) :].strip("/").split("/")
            at = self._mounts[name]
            for part in parts:
                at = os.path.join(at, part)
                if self.files.make(at):
                    self._can_mark &= self.files.set_mark(at, marks.ROOT, self._owner)
                if self.version == "v2":
                    self._delegate(at)
        for controller in self._controllers:
            controller.prepare_root(self._roots[self._hierarchy_of(controller)])
        roots, files = self._roots, self.files
        self._controllers = [
            c for c in self._controllers if can_limit(c, roots[self._hierarchy_of(c)], files)
        ]

    def make(self, key: str, limits: ContainerLimits) -> None:
        """Create one container's cgroups and set every limit, before any process is inside.

        Raises:
            HostError: another program has a cgroup of this name.
            OSError: the kernel refused; ``filename`` says which file.
        """
        files = self.files
        names = [task.name for task in limits.tasks]
        for name, root in self._roots.items():
            path = f"{root}/{key}"
            if files.make(path):
                self._can_mark &= files.set_mark(path, marks.CONTAINER, self._owner)
            elif not self._is_ours(path):
                raise HostError(
                    f"cgroup {path} exists already, and Galaxy did not make it for this container",
                    hint="remove it, or give the agent another --cgroup-root",
                )
            if name in self._per_task:
                if self.version == "v2":
                    self._delegate(path)
                for child in names if self.version == "v1" else (INIT, *names):
                    files.make(f"{path}/{child}")
        for controller in self._controllers:
            path = f"{self._roots[self._hierarchy_of(controller)]}/{key}"
            controller.limit_container(path, limits)
            if controller.per_task:
                for task in limits.tasks:
                    controller.limit_task(f"{path}/{task.name}", task)

    def resize(self, key: str, limits: ContainerLimits) -> tuple[str, ...]:
        """Set every limit of a running container anew; return which memory limits stay as they were, and why.

        Raises:
            OSError: the container is gone, or the kernel refused; ``filename`` says which file.
        """
        held: list[str] = []
        for controller in self._controllers:
            path = f"{self._roots[self._hierarchy_of(controller)]}/{key}"
            if isinstance(controller, OrderedController):
                held += controller.resize(path, limits)
            elif controller.per_task and can_limit(controller, os.path.dirname(path), self.files):
                controller.limit_container(path, limits)
                for task in limits.tasks:
                    controller.limit_task(f"{path}/{task.name}", task)
        return tuple(held)

    def open(self, key: str, limits: ContainerLimits) -> OpenCgroups:
        """Open what PID 1 enters and what it passes to its programs; see ``TaskCgroup``."""
        opened: list[int] = []

        def grab(path: str, flags: int = os.O_RDWR) -> int:
            opened.append(os.open(path, flags | os.O_CLOEXEC))
            return opened[-1]

        def grab_event(path: str, oom: int) -> int:
            event = self._memory.oom_event(path, oom)
            if event >= 0:
                opened.append(event)
            return event

        order = sorted(self._per_task, key=lambda name: (name != self._listing, name))
        try:
            init_cgroup = INIT if self.version == "v2" else "."
            roots = sorted(self._roots, key=lambda name: name in self._per_task)
            init = tuple(grab(f"{self._roots[name]}/{key}/{init_cgroup}/cgroup.procs") for name in roots)
            tasks = tuple(
                TaskCgroup(
                    name=task.name,
                    procs_fds=tuple(
                        grab(f"{self._roots[name]}/{key}/{task.name}/cgroup.procs") for name in order
                    ),
                    oom_fd=(
                        oom := grab(
                            self._memory.oom_file(f"{self._of('memory')}/{key}/{task.name}"), os.O_RDONLY
                        )
                    ),
                    oom_event_fd=grab_event(f"{self._of('memory')}/{key}/{task.name}", oom),
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

    def container_keys(self) -> list[str]:
        """Return the keys of all containers with a cgroup in any hierarchy, sorted.

        Empty if the kernel keeps no marks: then the launcher's records are the only list.
        """
        found = {
            name
            for root in self._roots.values()
            for name in self.files.children(root)
            if self._mark_matches(f"{root}/{name}")
        }
        return sorted(found)

    def has(self, key: str) -> bool:
        """Return whether a container has a cgroup in any hierarchy."""
        return any(self._is_ours(f"{root}/{key}") for root in self._roots.values())

    def claim(self, key: str) -> None:
        """Mark the cgroups of a container that the launcher has recorded, if they have no mark.

        If marking fails, marks are not used to recognise cgroups.
        """
        for root in self._roots.values():
            path = f"{root}/{key}"
            if self.files.mark_of(path, marks.CONTAINER) is None and self.files.has(path):
                self._can_mark &= self.files.set_mark(path, marks.CONTAINER, self._owner)

    def pids(self, key: str) -> list[int]:
        """Return the pids of every process in a container, sorted."""
        base = f"{self._roots[self._listing]}/{key}"
        if not self._is_ours(base):
            return []
        return sorted({pid for path in self._below(base) for pid in self.files.pids(path)})

    def oom_kills(self, key: str) -> int:
        """Return how many processes the kernel OOM-killed in the container and its tasks."""
        base = f"{self._of('memory')}/{key}"
        total = 0
        for path in (base, *(f"{base}/{child}" for child in self.files.children(base))):
            with contextlib.suppress(FileNotFoundError):
                total += field(self.files.read(self._memory.oom_file(path)), "oom_kill")
        return total

    def usage(self, key: str) -> Usage:
        """Measure one container.

        Raises:
            FileNotFoundError: its cgroups are gone.
        """
        return Usage(
            cpu_ns=self.cpu_ns(key),
            memory_bytes=self._memory.used_bytes(f"{self._of('memory')}/{key}"),
            pids=int(self.files.read(f"{self._of('pids')}/{key}/pids.current")),
            oom_kills=self.oom_kills(key),
        )

    def cpu_ns(self, key: str) -> int:
        """Return the CPU time that one container has used.

        Raises:
            FileNotFoundError: its cgroups are gone.
        """
        if self.version == "v2":
            return field(self.files.read(f"{self._of('cpu')}/{key}/cpu.stat"), "usage_usec") * 1000
        return v1.cpu_ns(f"{self._roots['cpuacct']}/{key}") if "cpuacct" in self._roots else 0

    def kill(self, key: str) -> None:
        """Kill every process in a container, including children forked meanwhile.

        The cgroup must never be used again: on Linux 6.18 every child that CLONE_INTO_CGROUP puts into
        a cgroup after a write to its ``cgroup.kill`` is killed.
        """
        if not self._is_ours(f"{self._roots[self._listing]}/{key}"):
            return
        unified = f"{self._roots[UNIFIED]}/{key}/cgroup.kill" if UNIFIED in self._roots else ""
        if unified and self.files.has(unified):
            with contextlib.suppress(FileNotFoundError):
                self.files.write(unified, 1)
            return
        freezer = f"{self._roots['freezer']}/{key}" if "freezer" in self._roots else ""
        frozen = bool(freezer) and freeze(self.files, freezer)
        for pid in self.pids(key):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if frozen:
            thaw(self.files, freezer)  # SIGKILL reaches a frozen process only when it is thawed.

    def remove(self, key: str) -> bool:
        """Remove every cgroup of a container; return False while one still has processes."""
        gone = True
        for root in self._roots.values():
            base = f"{root}/{key}"
            if not self._is_ours(base):
                continue
            try:
                for path in reversed(self._below(base)):
                    self.files.remove(path)
            except OSError:
                gone = False
        return gone

    def remove_root(self) -> None:
        """Remove the root and its parents, as far as Galaxy has made them, where they are empty."""
        for name, path in self._roots.items():
            while path != self._mounts[name] and self._has_made(path):
                try:
                    self.files.remove(path)
                except OSError:
                    break
                path = os.path.dirname(path)

    def _has_made(self, root: str) -> bool:
        """Return whether Galaxy made a root; without marks, the configured one is taken for its own."""
        if self.files.mark_of(root, marks.ROOT) is not None:
            return True
        return not self._can_mark and root in self._roots.values()

    def _is_ours(self, path: str) -> bool:
        """Return whether a cgroup exists and was made for a container of this tree's owner.

        Without marks the caller's own record of the container has to be enough.
        """
        return self._mark_matches(path) if self._can_mark else self.files.has(path)

    def _mark_matches(self, path: str) -> bool:
        mark = self.files.mark_of(path, marks.CONTAINER)
        return mark is not None and self._owner in ("", mark)

    def _below(self, path: str) -> list[str]:
        """Return a cgroup and every one below it, each before those inside it."""
        paths = [path]
        for each in paths:
            paths += (f"{each}/{child}" for child in self.files.children(each))
        return paths

    def _of(self, hierarchy: str) -> str:
        return self._roots[UNIFIED if self.version == "v2" else hierarchy]

    def _hierarchy_of(self, controller: Controller) -> str:
        return UNIFIED if self.version == "v2" else controller.hierarchy

    def _delegate(self, path: str) -> None:
        """Enable our controllers for the children of a v2 cgroup; move its processes to a leaf if needed."""
        available = set(self.files.read(f"{path}/cgroup.controllers").split())
        enabled = set(self.files.read(f"{path}/cgroup.subtree_control").split())
        missing = sorted(({c.hierarchy for c in self._controllers} & available) - enabled)
        if not missing:
            return
        command = " ".join(f"+{name}" for name in missing)
        try:
            self.files.write(f"{path}/cgroup.subtree_control", command)
        except OSError:
            # "No internal processes" rule: only the root of the whole host, without cgroup.type, is exempt.
            if path != self._mounts[UNIFIED] or not self.files.has(f"{path}/cgroup.type"):
                raise
            leaf = f"{path}/galaxy-host"
            self.files.make(leaf)
            for pid in self.files.pids(path):
                with contextlib.suppress(ProcessLookupError):
                    self.files.write(f"{leaf}/cgroup.procs", pid)
            self.files.write(f"{path}/cgroup.subtree_control", command)
