"""System calls that Python has no function for: namespaces, mounts, loop devices, bpf.

A failed call raises ``OSError`` with the name of the call. Numbers and structures are those of Linux'
userspace headers for x86_64 and aarch64. Capabilities and other process attributes are in ``prctl``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
from collections.abc import Iterable
from typing import Final

CLONE_PARENT: Final = 0x0000_8000
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWCGROUP: Final = 0x0200_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_NOATIME: Final = 0x400
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

ATTR_RDONLY: Final = 0x1
ATTR_NOSUID: Final = 0x2
ATTR_NODEV: Final = 0x4

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_CLOSE_RANGE: Final = 436
_SYS_MOUNT_SETATTR: Final = 442
_SYS_CLONE: Final = 56 if platform.machine() == "x86_64" else 220
_SYS_PIVOT_ROOT: Final = 155 if platform.machine() == "x86_64" else 41

_SYS_BPF: Final = 321 if platform.machine() == "x86_64" else 280

_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LO_FLAGS_AUTOCLEAR: Final = 4
_LOOP_TRIES: Final = 200

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc_with_gil: Final = ctypes.PyDLL(None, use_errno=True)
"""The same library, called with the GIL held.

A child of fork must return with the GIL held: the thread that would release it does not exist there.
"""
_libc_with_gil.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
)  # fmt: skip
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces (unshare(2))."""
    _check(_libc.unshare(flags), "unshare", hex(flags))


def setns(fd: int, flags: int) -> None:
    """Enter the namespace that ``fd`` refers to, or those of the process whose pidfd it is (setns(2))."""
    _check(_libc.setns(fd, flags), "setns", hex(flags))


def fork_into_pid_namespace(own_pid_namespace: int) -> int:
    """Fork a child that is PID 1 of a new PID namespace; return as ``os.fork`` does.

    ``own_pid_namespace`` is the caller's ``/proc/self/ns/pid``, open: later children are created there again.
    Cheaper and safer than a bare clone3, because libc's fork handlers run. The caller must be
    single-threaded.
    """
    unshare(CLONE_NEWPID)
    try:
        pid = os.fork()
    except OSError:
        setns(own_pid_namespace, CLONE_NEWPID)
        raise
    if pid:
        setns(own_pid_namespace, CLONE_NEWPID)
    return pid


def fork_sibling() -> int:
    """Fork a child of the caller's parent, PID 1 of a new PID namespace; return as ``os.fork`` does.

    Uses clone(2) with CLONE_PARENT, which no library function offers. The caller must be
    single-threaded. Python's fork handlers run, libc's do not.
    """
    flags = CLONE_PARENT | CLONE_NEWPID | signal.SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_libc_with_gil.syscall(ctypes.c_long(_SYS_CLONE), ctypes.c_long(flags), None, None, None, None))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None
) -> None:
    """Mount ``source`` at ``target`` (mount(2))."""
    code = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        flags,
        options.encode() if options else None,
    )
    _check(code, f"mount {kind or 'bind'}", target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount ``target``; by default detach it now and free it when its last user is gone (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def bind(source: str, target: str, attributes: int = 0, *, recursive: bool = False) -> None:
    """Bind-mount ``source`` at ``target``, with ``ATTR_*`` set on the new mount (and those below it)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _syscall("open_tree", source, _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        if attributes:
            _set_attributes(tree, b"", attributes, recursive=recursive, what=source)
        _syscall(
            "move_mount", target, _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target),
            _MOVE_MOUNT_F_EMPTY_PATH,
        )  # fmt: skip
    finally:
        os.close(tree)


def set_mount_attributes(target: str, attributes: int) -> None:
    """Set ``ATTR_*`` on the mount at ``target`` (mount_setattr(2))."""
    _set_attributes(_AT_FDCWD, os.fsencode(target), attributes, recursive=False, what=target)


def pivot_root(new_root: str) -> None:
    """Make ``new_root`` the root of this mount namespace and detach the old root completely."""
    os.chdir(new_root)
    _syscall("pivot_root", new_root, _SYS_PIVOT_ROOT, b".", b".")
    unmount(".", MNT_DETACH)
    os.chdir("/")


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in ``keep`` (close_range(2))."""
    low = 0
    for fd in sorted(set(keep)):
        if fd > low:
            _syscall("close_range", f"{low}-{fd - 1}", _SYS_CLOSE_RANGE, low, fd - 1, 0)
        low = fd + 1
    _syscall("close_range", f"{low}-", _SYS_CLOSE_RANGE, low, 0xFFFF_FFFF, 0)


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace (sethostname(2))."""
    socket.sethostname(name)


def reserve(fd: int, size_bytes: int) -> None:
    """Allocate disk space for a file without changing its content (fallocate(2))."""
    _check(_libc.fallocate(fd, 0, 0, size_bytes), "fallocate", f"{size_bytes} bytes")


def attach_loop(file: int, name: str) -> tuple[str, int]:
    """Attach an open file to a free loop device; return the device's path and an open descriptor of it.

    The kernel detaches the file when the last user of the device is gone: mount it, then close the
    descriptor.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOOP_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            _ensure_node(path, number)
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _loop_config(file, name))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", path) from error
            else:
                return path, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "LOOP_CONFIGURE: every free loop device was taken by another process", name)


def _loop_config(file: int, name: str) -> bytes:
    # struct loop_config: fd, block_size, struct loop_info64 (232 bytes), reserved[8].
    label = os.fsencode(name)[-63:]
    info = struct.pack(
        "=QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, label, b"", b"", 0, 0
    )
    return struct.pack("=II", file, 0) + info + bytes(64)


def bpf(command: int, attributes: bytes, what: str) -> int:
    """Call bpf(2) and return its result. ``what`` is named in the error."""
    return _syscall("bpf", what, _SYS_BPF, command, attributes, len(attributes))


def _ensure_node(path: str, minor: int) -> None:
    if not os.path.exists(path):  # Without devtmpfs nothing else creates the node.
        try:
            os.mknod(path, 0o60600, os.makedev(7, minor))
        except FileExistsError:
            return


def _set_attributes(fd: int, path: bytes, attributes: int, *, recursive: bool, what: str) -> None:
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = (_AT_RECURSIVE if recursive else 0) | (0 if path else _AT_EMPTY_PATH)
    _syscall("mount_setattr", what, _SYS_MOUNT_SETATTR, fd, path, flags, attr, len(attr))


def _syscall(name: str, what: str, number: int, *arguments: int | bytes) -> int:
    # ctypes passes a plain int as 32 bits, but the kernel reads whole registers.
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    _check(result, name, what)
    return result


def _check(result: int, call: str, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", what)
