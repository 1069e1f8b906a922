"""Volumes of enforced size: a tmpfs with its own limit, or an ext4 file system in a loop file.

A disk volume is a sparse copy of an empty ext4 file system, which is created once for each size; its
space is reserved on the host's disk. It is mounted only in the container's mount namespace, so the
kernel unmounts and detaches it when the last process of the container is gone. Without the privileges
for this a volume is a plain directory, and its size is not enforced.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from galaxy.container.kernel import syscalls
from galaxy.errors import HostError
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import VolumeDemand
from galaxy.units import GIB, format_bytes

_FLAGS: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV
_BLOCK_BYTES: Final = 4096
_INODE_BYTES: Final = 256
_FEATURES: Final = "^has_journal,^resize_inode,^quota,^metadata_csum,sparse_super2,extent,uninit_bg"
_MKFS_DIRS: Final = ("/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin")


def image_path(directory: str, index: int) -> str:
    """Return the path of the disk image of volume ``index`` of the container in ``directory``."""
    return f"{directory}/v{index}.img"


def plain_path(directory: str, index: int) -> str:
    """Return the directory that serves as volume ``index`` where sizes are not enforced."""
    return f"{directory}/v{index}"


def mount_volume(
    volume: VolumeDemand, target: str, *, directory: str, templates: str, index: int, uid: int, gid: int
) -> None:
    """Mount ``volume`` at ``target`` with its size enforced, owned by ``uid`` and ``gid`` (full mode).

    Raises:
        HostError: the disk has no room for it, or ``mkfs.ext4`` fails.
        OSError: a system call failed; its message names the call.
    """
    uid, gid = max(uid, 0), max(gid, 0)
    if volume.medium is Medium.TMPFS:
        mount_tmpfs(target, volume.size_bytes, mode=0o755, uid=uid, gid=gid)
    elif can_enforce():
        image = image_path(directory, index)
        _make_image(image, volume.size_bytes, templates=templates)
        _mount_image(image, target)
        os.chown(target, uid, gid)
    else:
        path = make_plain(directory, index)
        os.chown(path, uid, gid)
        syscalls.bind(path, target, syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV)
    if volume.readonly:
        syscalls.set_mount_attributes(target, syscalls.ATTR_RDONLY)


def bind_volume(volume: VolumeDemand, target: str, *, directory: str, index: int) -> None:
    """Mount ``volume`` at ``target`` without root: a tmpfs of its size, or a plain directory."""
    if volume.medium is Medium.TMPFS:
        mount_tmpfs(target, volume.size_bytes, mode=0o755)
        if volume.readonly:
            syscalls.mount(
                "", target, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | _FLAGS
            )
        return
    path = make_plain(directory, index)
    syscalls.bind(path, target, syscalls.ATTR_RDONLY if volume.readonly else 0)


def make_plain(directory: str, index: int) -> str:
    """Create the plain directory of volume ``index`` and return its path; its size is not enforced."""
    path = plain_path(directory, index)
    os.makedirs(path, mode=0o755, exist_ok=True)
    return path


def can_enforce() -> bool:
    """Return whether this host can probably enforce the size of a disk volume; ``host_probes`` tries it."""
    return mkfs_tool() is not None and os.path.exists("/dev/loop-control")


def mount_tmpfs(target: str, size_bytes: int, *, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Mount a tmpfs that holds ``size_bytes``; its number of files is limited in proportion."""
    inodes = max(256, size_bytes // _BLOCK_BYTES)
    owner = f",uid={uid},gid={gid}" if uid >= 0 else ""
    syscalls.mount(
        "tmpfs", target, "tmpfs", _FLAGS, f"size={size_bytes},nr_inodes={inodes},mode={mode:o}{owner}"
    )


def plain_used_bytes(path: str, entries_max: int) -> int:
    """Return the disk space of the files in a plain directory, counting ``entries_max`` files at most."""
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{base}/{name}").st_blocks * 512
            entries_max -= 1
            if entries_max <= 0:
                return total
    return total


def make_template(templates: str, size_bytes: int) -> str:
    """Return the path of an empty ext4 file system of ``size_bytes``, which is created on first use.

    Raises:
        HostError: ``mkfs.ext4`` is missing or fails.
    """
    path = f"{templates}/ext4-{size_bytes}.img"
    if os.path.exists(path):
        return path
    os.makedirs(templates, mode=0o700, exist_ok=True)
    tool = mkfs_tool()
    if tool is None:
        raise HostError(
            "cannot make disk volumes: mkfs.ext4 is not installed", hint="apt-get install e2fsprogs"
        )
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes // _BLOCK_BYTES * _BLOCK_BYTES)
        _mkfs(tool, draft, size_bytes)
        os.rename(draft, path)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    return path


def mkfs_tool() -> str | None:
    """Return the path of ``mkfs.ext4``, or None. PATH is not searched: it may lack the sbin directories."""
    paths = (f"{directory}/mkfs.ext4" for directory in _MKFS_DIRS)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _mkfs(tool: str, path: str, size_bytes: int) -> None:
    ratio = 16_384 if size_bytes <= 16 * GIB else 65_536
    command = [
        tool, "-q", "-F", "-m", "0", "-b", str(_BLOCK_BYTES), "-I", str(_INODE_BYTES), "-i", str(ratio),
        "-O", _FEATURES,
        "-E", "lazy_itable_init=1,nodiscard,num_backup_sb=0,root_owner=0:0", path,
    ]  # fmt: skip
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            tool,
            command,
            {"LC_ALL": "C"},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
        )
    finally:
        os.close(null)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise HostError(
            f"cannot make a file system of {format_bytes(size_bytes)}: mkfs.ext4 exited with code {code}"
        )


def _make_image(image: str, size_bytes: int, *, templates: str) -> None:
    disk = os.statvfs(os.path.dirname(image))
    if disk.f_bavail * disk.f_frsize < size_bytes:
        free = format_bytes(disk.f_bavail * disk.f_frsize)
        raise HostError(f"no room on the disk for a volume of {format_bytes(size_bytes)}: {free} are free")
    source = os.open(make_template(templates, size_bytes), os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(image, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(source).st_size
            try:
                syscalls.reserve(target, size)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise HostError(
                        f"no room on the disk for a volume of {format_bytes(size_bytes)}"
                    ) from error
                if error.errno != errno.EOPNOTSUPP:
                    raise
                os.ftruncate(target, size)
            _copy_sparse(source, target, size)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_sparse(source: int, target: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # There is no data after ``at``.
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            data = os.pread(source, min(end - start, 1 << 20), start)
            start += os.pwrite(target, data, start)
        at = end


def _mount_image(image: str, target: str) -> None:
    file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        path, device = syscalls.attach_loop(file, image)
    finally:
        os.close(file)
    try:
        flags = _FLAGS | syscalls.MS_NOATIME
        syscalls.mount(path, target, "ext4", flags, "noinit_itable")
    finally:
        os.close(device)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(f"{target}/lost+found")
