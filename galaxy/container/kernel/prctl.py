"""Restrict a process and set its name, with prctl(2) and capset(2).

Used by the launcher and by PID 1 of every container (``galaxy.worker_entry``), so this module imports
nothing but the standard library, and looks up every function at import: after ``pivot_root`` nothing can be
imported any more. Source: prctl(2), capset(2), seccomp(2), linux/capability.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterable
from typing import Final

CAPABILITIES: Final = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control",
    "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
    "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip
"""Names of capabilities(7); the index is the capability's number."""

_PR_SET_PDEATHSIG: Final = 1
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
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_CAPABILITY_NUMBERS: Final = range(64)
_NAME_BYTES_MAX: Final = 15

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PRCTL: Final = _LIBC.prctl
_PRCTL.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_CAPGET: Final = _LIBC.capget
_CAPSET: Final = _LIBC.capset
_CAPGET.argtypes = _CAPSET.argtypes = [ctypes.c_void_p, ctypes.c_void_p]


class _SockFprog(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


class SeccompFilter:
    """A BPF program in memory, prepared before a fork so that the child only installs it."""

    def __init__(self, program: bytes) -> None:
        assert program and len(program) % 8 == 0, "a BPF program is a sequence of 8-byte instructions"
        self._program = ctypes.create_string_buffer(program, len(program))
        self._fprog = _SockFprog(len(program) // 8, ctypes.addressof(self._program))

    def install(self) -> None:
        """Filter the system calls of this process and its children; requires no_new_privs. Irreversible."""
        _prctl("PR_SET_SECCOMP", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(self._fprog))


def set_process_name(name: str) -> None:
    """Set /proc/PID/comm, which ``ps`` shows; cut to 15 bytes."""
    text = ctypes.create_string_buffer(name.encode()[:_NAME_BYTES_MAX])
    _prctl("PR_SET_NAME", _PR_SET_NAME, ctypes.addressof(text))


def become_subreaper() -> None:
    """Make this process the parent of descendants whose own parents die."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send signal ``number`` to this process when the thread that forked it ends."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, number)


def set_no_new_privileges() -> None:
    """Make every later exec gain no privileges; inherited by children, irreversible."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def deny_memory_access() -> None:
    """Make this process undumpable until its next exec.

    Other processes of the same user then cannot read its memory, descriptors or environment in /proc.
    """
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)


def limit_bounding_set(keep: Iterable[str] = ()) -> None:
    """Drop every capability except ``keep`` from the bounding set; the process keeps the capabilities it has.

    Raises:
        OSError: EPERM, without CAP_SETPCAP while there is something to drop.
    """
    kept = {CAPABILITIES.index(name) for name in keep}
    for number in _CAPABILITY_NUMBERS:
        if number in kept or _PRCTL(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
            continue
        code = ctypes.get_errno()
        if code == errno.EINVAL:
            return  # Past the last capability that this kernel knows.
        if _PRCTL(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            raise OSError(code, f"prctl PR_CAPBSET_DROP: {os.strerror(code)}", str(number))


def limit_capabilities(keep: Iterable[str] = ()) -> None:
    """Give up every permitted, effective, inheritable and ambient capability except ``keep``.

    A capability of ``keep`` that the process does not have is left out.
    """
    _prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two struct __user_cap_data_struct: effective, permitted, inheritable; low words, then high words.
    held = (ctypes.c_uint32 * 6)()
    _check(_CAPGET(header, held), "capget")
    mask = sum(1 << CAPABILITIES.index(name) for name in keep) & (held[1] | held[4] << 32)
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    _check(_CAPSET(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)), "capset")


def _prctl(name: str, option: int, second: int = 0, third: int = 0) -> None:
    _check(_PRCTL(option, second, third, 0, 0), f"prctl {name}")


def _check(result: int, call: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
