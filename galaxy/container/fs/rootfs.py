"""The root of a container: system directories of the host, read-only, and private directories.

The static part (``build``) is mounted once for each ``RootLayout``, in the launcher's mount namespace. A
new mount namespace is a copy of its creator's, so every container gets these mounts without building
them. Only what belongs to one container is mounted for each (``mount_own``): ``/proc`` with masks,
``/tmp``, ``/run``, ``/dev/pts``, ``/dev/shm``, and the volumes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Final

from galaxy.container.fs import etc
from galaxy.container.fs.volumes import mount_tmpfs
from galaxy.container.kernel import syscalls
from galaxy.errors import HostError
from galaxy.units import MIB

TMP_BYTES: Final = 64 * MIB
SHM_BYTES: Final = 64 * MIB
RUN_BYTES: Final = 1 * MIB
PTYS_MAX: Final = 64
"""Terminals of one container; the kernel has a few thousand for the whole host."""
_ROOT_BYTES: Final = 16 * MIB
_DEVPTS: Final = f"newinstance,ptmxmode=0666,mode=0620,max={PTYS_MAX}"

_READ_ONLY: Final = syscalls.ATTR_RDONLY | syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV
_SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NODES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_LINKS: Final = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx", "core": "/proc/kcore",
}  # fmt: skip

READ_ONLY_PROC: Final = ("sys", "irq", "bus", "fs", "pressure")
MASKED_PROC: Final = (
    "kcore", "keys", "key-users", "sysrq-trigger", "timer_list", "sched_debug", "latency_stats",
    "kallsyms", "kpagecount", "kpageflags", "kpagecgroup", "config.gz", "acpi", "scsi", "asound", "driver",
)  # fmt: skip
_MASKED_SYS: Final = ("firmware", "kernel/security", "kernel/debug", "kernel/tracing", "kernel/notes")


@dataclass(frozen=True, kw_only=True)
class RootLayout:
    """What determines the static part of a root; containers with equal layouts share one."""

    mountpoints: tuple[str, ...]
    """Paths of volumes; an outer one comes before those inside it."""
    system_dirs: tuple[str, ...] = ()
    """More directories of the host, read-only."""
    sysfs: bool = True
    """Mount the /sys of the current network namespace; False if the container gets its own."""


def build(root: str, layout: RootLayout, *, privileged: bool = True) -> None:
    """Mount a tmpfs at ``root`` and create everything in it that containers with ``layout`` share.

    Raises:
        HostError: nothing can be mounted at a volume's path.
        OSError: a system call failed; its message names the call.
    """
    options = f"size={_ROOT_BYTES},nr_inodes=8192,mode=755"
    syscalls.mount("tmpfs", root, "tmpfs", syscalls.MS_NOSUID, options)
    for name in ("etc", "dev/pts", "dev/shm", "proc", "sys", "tmp", "run", "var/lib", "var/log", "var/cache"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    os.symlink("../tmp", f"{root}/var/tmp")  # noqa: S108 - a path in the container
    os.symlink("../run", f"{root}/var/run")
    for name in _SYSTEM:
        _bind_from_host(root, f"/{name}")
    for path in layout.system_dirs:
        _bind_from_host(root, os.path.normpath(path))
    etc.write(f"{root}/etc")
    for path in etc.BOUND:
        _bind_from_host(root, path)
    _mask_private_keys(root)
    _make_dev(root, privileged=privileged)
    if layout.sysfs and privileged:
        mount_sysfs(root)
    _make_mountpoints(root, layout.mountpoints)
    if privileged:
        syscalls.set_mount_attributes(root, syscalls.ATTR_RDONLY)


def mount_own(root: str) -> None:
    """Mount what belongs to one container, except volumes; the caller is PID 1 of its namespaces."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    proc = f"{root}/proc"
    syscalls.mount("proc", proc, "proc", flags)
    for name in READ_ONLY_PROC:
        path = f"{proc}/{name}"
        try:
            syscalls.mount(path, path, None, syscalls.MS_BIND)
        except FileNotFoundError:
            continue
        syscalls.mount("", path, None, flags | syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY)
    for name in MASKED_PROC:
        _mask(root, f"{proc}/{name}")
    syscalls.mount("devpts", f"{root}/dev/pts", "devpts", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, _DEVPTS)
    mount_tmpfs(f"{root}/dev/shm", SHM_BYTES, mode=0o1777)  # noqa: S108
    mount_tmpfs(f"{root}/tmp", TMP_BYTES, mode=0o1777)  # noqa: S108
    mount_tmpfs(f"{root}/run", RUN_BYTES, mode=0o755)


def mount_sysfs(root: str) -> None:
    """Mount a read-only ``/sys`` of the current network namespace, with the host's firmware masked."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_RDONLY
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", flags)
    for name in _MASKED_SYS:
        _mask(root, f"{root}/sys/{name}")


def _bind_from_host(root: str, path: str) -> None:
    """Bind-mount one path of the host at the same path in ``root``, read-only; copy a symbolic link."""
    target = f"{root}{path}"
    if os.path.islink(path):
        if not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        with contextlib.suppress(OSError):  # It is below a directory that is bind-mounted already.
            os.makedirs(target, exist_ok=True)
    elif os.path.isfile(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(OSError):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    else:
        return
    syscalls.bind(path, target, _READ_ONLY, recursive=True)


def _mask_private_keys(root: str) -> None:
    for path in etc.PRIVATE:
        if os.path.isdir(f"{root}{path}"):
            syscalls.mount("tmpfs", f"{root}{path}", "tmpfs", syscalls.MS_RDONLY, "size=4k,mode=0700")


def _make_dev(root: str, *, privileged: bool) -> None:
    dev = f"{root}/dev"
    for name, (major, minor) in _NODES.items():
        path = f"{dev}/{name}"
        if privileged:
            os.mknod(path, 0o020666, os.makedev(major, minor))
            os.chmod(path, 0o666)  # noqa: S103 - every user may use these devices
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
            syscalls.mount(f"/dev/{name}", path, None, syscalls.MS_BIND)
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")


def _make_mountpoints(root: str, paths: tuple[str, ...]) -> None:
    for path in paths:
        if any(path.startswith(f"{outer}/") for outer in paths if outer != path):
            continue  # It is inside another volume, and is created there.
        if path.startswith(("/tmp/", "/run/")):  # noqa: S108
            continue  # It is inside a mount that each container gets for itself, and is created there.
        try:
            os.makedirs(f"{root}{path}", exist_ok=True)
        except OSError as error:
            raise HostError(
                f"cannot put a volume at {path}: {error.strerror}",
                hint="choose a path outside the system directories",
            ) from error


def _mask(root: str, path: str) -> None:
    try:
        syscalls.mount(f"{root}/dev/null", path, None, syscalls.MS_BIND)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_RDONLY, "size=0,nr_inodes=1,mode=0555")
