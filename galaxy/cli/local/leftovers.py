"""Find and remove what a cluster leaves on its host: processes, cgroups, mounts, loop devices.

Only /proc, /sys and the cluster's folder are read, and no process of Galaxy is asked, so that the answer
is right however the cluster's processes ended. What Galaxy did not make is never part of the answer: a
cgroup counts by its mark or its container's record, a mount or loop device by its place in an agent's
state directory, a process by its program and its arguments.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import selectors
import signal
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from galaxy.container.cgroup import marks
from galaxy.container.kernel.processes import read_stat, start_ticks
from galaxy.container.launcher.directory import owner_of as directory_owner
from galaxy.model.base import Struct

_MODULE: Final = re.compile(rb"galaxy\.[a-z_.]+")
_PARTS: Final = frozenset({b"resman", b"appmaster", b"agent", b"web"})
"""Commands that are parts of a cluster. Those of a person, as ``galaxy logs -f``, end by themselves."""
_QUERIES: Final = frozenset({b"list", b"ls", b"list_agents", b"show"})
"""What follows ``galaxy agent`` in a command of a person."""
_SERVERS: Final = re.compile(rb"(redis|valkey)[a-z-]*")
_STATE_DIRECTORIES: Final = ("c", "t", "garbage")
"""Where in its state directory an agent mounts things and keeps images of volumes."""
_LOOP_CLR_FD: Final = 0x4C01
_MNT_DETACH: Final = 2


class Leftovers(Struct, frozen=True, kw_only=True):
    """What is left of a cluster: pids, paths of cgroups, mount points, loop devices."""

    processes: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.cgroups or self.mounts or self.loops)

    def lines(self) -> tuple[str, ...]:
        """Return one line for each kind of leftover."""
        kinds = (
            ("processes", [str(pid) for pid in self.processes]),
            ("cgroups", self.cgroups),
            ("mounts", self.mounts),
            ("loop devices", self.loops),
        )
        return tuple(f"{kind}: {', '.join(names)}" for kind, names in kinds if names)


def find(root: Path, cgroup_roots: Sequence[str]) -> Leftovers:
    """Return what is left of the cluster in folder ``root`` with the cgroups ``cgroup_roots``."""
    return Leftovers(
        processes=tuple(sorted(_processes(root, cgroup_roots))),
        cgroups=(
            *(str(path) for top in _containers(root, cgroup_roots) for path in _tree(top)),
            *map(str, _unused_roots(root, cgroup_roots)),
        ),
        mounts=tuple(_mounts(root)),
        loops=tuple(_loops(root)),
    )


def remove(root: Path, cgroup_roots: Sequence[str], *, timeout_s: float = 10.0) -> Leftovers:
    """Kill, unmount, detach and remove what is left; return what remains after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        for top in _containers(root, cgroup_roots):
            _kill_cgroup(top)
        pids = sorted(_processes(root, cgroup_roots))
        kill(pids, signal.SIGKILL)
        await_end(pids, max(0.05, min(1.0, deadline - time.monotonic())))
        for mount in reversed(_mounts(root)):
            _unmount(mount)
        for loop in _loops(root):
            _detach(loop)
        for top in _containers(root, cgroup_roots):
            _remove_tree(top)
        for top in _unused_roots(root, cgroup_roots):
            with contextlib.suppress(OSError):  # Another program has come into it, or it is gone.
                top.rmdir()
        left = find(root, cgroup_roots)
        if not left or time.monotonic() >= deadline:
            return left
        # Lazy unmounts and reaping finish a moment later, and the kernel does not announce it.
        time.sleep(0.05)


def kill(pids: Iterable[int], number: int) -> None:
    """Send signal ``number`` to the ``pids`` that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def await_end(pids: Iterable[int], timeout_s: float) -> bool:
    """Wait until all of ``pids`` have ended; return False when some have not after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for pid in pids:
            with contextlib.suppress(OSError):
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ)
        try:
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    selector.unregister(key.fd)
                    os.close(key.fd)
            return not selector.get_map()
        finally:
            for handle in [key.fd for key in selector.get_map().values()]:
                os.close(handle)


def readable(handle: int, timeout_s: float) -> bool:
    """Wait until a file descriptor is readable; return False when it is not after ``timeout_s``."""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, timeout_s)))


def _processes(root: Path, cgroup_roots: Sequence[str]) -> set[int]:
    """Return processes of containers, Galaxy's processes that name the folder, and their descendants.

    This process and its ancestors are never included.
    """
    folder = os.fsencode(root)
    contained = {
        pid for top in _containers(root, cgroup_roots) for path in _tree(top) for pid in _members(path)
    }
    parents: dict[int, int] = {}
    pids: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            argv = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            if (stat := read_stat(pid)) is None:
                continue
            parents[pid] = stat.parent
            if stat.is_dead:
                continue
            if pid in contained or _names_folder(argv, folder):
                pids.add(pid)
    excluded = _ancestors(os.getpid(), parents)
    pids -= excluded
    found_more = True
    while found_more:
        more = {pid for pid, parent in parents.items() if parent in pids and pid not in pids} - excluded
        more = {pid for pid in more if start_ticks(pid)}
        pids |= more
        found_more = bool(more)
    return pids


def _names_folder(argv: Sequence[bytes], folder: bytes) -> bool:
    """Return whether this is the command line of a part of the cluster in ``folder``."""
    program = os.path.basename(argv[0]) if argv else b""
    if _SERVERS.fullmatch(program):
        return folder + b"/redis/server.conf" in argv
    if not program.startswith((b"python", b"galaxy")):
        return False
    if not any(arg == folder or arg.startswith(folder + b"/") for arg in argv):
        return False
    for index, arg in enumerate(argv[:6]):
        if _MODULE.fullmatch(arg) or (index < 2 and os.path.basename(arg) == b"galaxy"):
            is_command = arg == b"galaxy.cli.main" or not _MODULE.fullmatch(arg)
            words = [each for each in argv[index + 1 :] if each and not each.startswith((b"-", folder))]
            is_part = not words or (words[0] in _PARTS and not _QUERIES.intersection(words[1:2]))
            return is_part or not is_command
    return False


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    ancestors = set()
    while pid > 1 and pid not in ancestors:
        ancestors.add(pid)
        pid = parents.get(pid, 0)
    return ancestors | {0, 1}


def _roots(cgroup_roots: Sequence[str]) -> list[Path]:
    """Return the directories that hold the cluster's containers, in every mounted cgroup hierarchy."""
    tops = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            mount = Path(_unescape(before.split()[4]))
            tops += [mount / root for root in cgroup_roots if (mount / root).is_dir()]
    return tops


def _containers(root: Path, cgroup_roots: Sequence[str]) -> list[Path]:
    """Return the cgroups of the cluster's containers."""
    recorded = {
        path.name
        for path in root.glob("agent/*/c/*")
        if path.is_dir() and directory_owner(str(path)) is not None
    }
    children = [path for top in _roots(cgroup_roots) for path in top.iterdir() if path.is_dir()]
    return [path for path in children if _is_of_cluster(path, root, recorded)]


def _unused_roots(root: Path, cgroup_roots: Sequence[str]) -> list[Path]:
    """Return the roots that the cluster made and in which nothing else is: no cgroup and no process."""
    containers = set(_containers(root, cgroup_roots))
    return [
        top
        for top in _roots(cgroup_roots)
        if _is_made_by_cluster(top, root)
        and not _members(top)
        and containers.issuperset(path for path in top.iterdir() if path.is_dir())
    ]


def _is_made_by_cluster(top: Path, root: Path) -> bool:
    mark = marks.mark_of(str(top), marks.ROOT)
    if mark is None:  # Only root can mark what it makes.
        return os.geteuid() != 0
    return Path(mark).is_relative_to(root)


def _members(cgroup: Path) -> list[int]:
    """Return the processes that are in a cgroup itself; none if it is gone.

    The kernel lists processes outside this PID namespace as 0, which kill() would take for a group.
    """
    try:
        return [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split() if pid != "0"]
    except (OSError, ValueError):
        return []


def _is_of_cluster(path: Path, root: Path, recorded: Collection[str]) -> bool:
    mark = marks.mark_of(str(path), marks.CONTAINER)
    return path.name in recorded if mark is None else Path(mark).is_relative_to(root)


def _tree(top: Path) -> list[Path]:
    """Return ``top`` and every cgroup below it, deepest first."""
    return [Path(path) for path, _, _ in os.walk(top, topdown=False)]


def _kill_cgroup(top: Path) -> None:
    """Thaw and kill everything in a cgroup and below it."""
    for path in _tree(top):
        with contextlib.suppress(OSError):
            if (path / "freezer.state").exists():
                _write(path / "freezer.state", "THAWED")
        with contextlib.suppress(OSError):
            if (path / "cgroup.kill").exists():
                _write(path / "cgroup.kill", "1")
        kill(_members(path), signal.SIGKILL)


def _remove_tree(top: Path) -> None:
    for path in _tree(top):
        with contextlib.suppress(OSError):
            path.rmdir()


def _write(path: Path, value: str) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def _mounts(root: Path) -> list[str]:
    """Return the mount points in the state directories of the cluster's agents, oldest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [mount for line in lines if _is_of_agent(mount := _unescape(line.split()[4]), root)]


def _loops(root: Path) -> list[str]:
    """Return the loop devices whose backing file is in the state directory of an agent of the cluster."""
    loops = []
    for block in sorted(Path("/sys/block").glob("loop*")):
        with contextlib.suppress(OSError):
            if _is_of_agent((block / "loop" / "backing_file").read_text(), root):
                loops.append(f"/dev/{block.name}")
    return loops


def _is_of_agent(path: str, root: Path) -> bool:
    """Return whether a path is below a directory of an agent in which only the agent works."""
    if not path.startswith(f"{root}/agent/"):
        return False
    _, *inside = path.removeprefix(f"{root}/agent/").split("/")
    return len(inside) > 1 and inside[0] in _STATE_DIRECTORIES


def _unmount(mount: str) -> None:
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(mount), _MNT_DETACH)


def _detach(loop: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(loop, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ctypes.CDLL(None, use_errno=True).ioctl(handle, _LOOP_CLR_FD)
        finally:
            os.close(handle)


def _unescape(text: str) -> str:
    """Decode the octal escapes of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
