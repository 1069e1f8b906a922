"""The few kernel calls that the standard library lacks; each raises ``OSError`` like its others.

Everything is looked up at import, because nothing may be imported once the root file system
has been pivoted away. Source: prctl(2), capset(2), seccomp(2), linux/capability.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PRCTL: Final = _LIBC.prctl
_PRCTL.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_PRCTL_TEXT: Final = _LIBC["prctl"]
_PRCTL_TEXT.argtypes = [ctypes.c_int, ctypes.c_char_p]
_CAPSET: Final = _LIBC.capset
_CAPSET.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522


class _Filter(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


class Seccomp:
    """A BPF program made ready before fork, so that a child only has to install it."""

    def __init__(self, program: bytes) -> None:
        assert program and len(program) % 8 == 0, "a BPF program is a row of 8-byte instructions"
        self._program = ctypes.create_string_buffer(program, len(program))
        self._filter = _Filter(len(program) // 8, ctypes.addressof(self._program))

    def install(self) -> None:
        """Filter the system calls of this process from now on; needs ``no_new_privs``."""
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(self._filter))


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Set what ``ps`` and /proc/PID/comm show; 15 bytes."""
    _PRCTL_TEXT(_PR_SET_NAME, name.encode()[:15])


def hide_memory() -> None:
    """Keep others of the same user out of this process's memory and descriptors, until an exec."""
    _prctl(_PR_SET_DUMPABLE, 0)


def no_new_privs() -> None:
    """Promise that no exec from here on gains privileges (prctl(2)); nothing undoes it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """Take every capability from what an exec could ever give; a no-op without CAP_SETPCAP."""
    for capability in range(64):
        try:
            if _prctl(_PR_CAPBSET_READ, capability):
                _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):  # Past the last one; not allowed to.
                return
            raise


def drop_capabilities() -> None:
    """Empty the effective, permitted, inheritable and ambient sets of this process."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if _CAPSET(header, data) != 0:
        _fail("capset")


def _prctl(option: int, second: int = 0, third: int = 0) -> int:
    result: int = _PRCTL(option, second, third, 0, 0)
    if result < 0:
        _fail(f"prctl {option}")
    return result


def _fail(call: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{call}: {os.strerror(code)}")
