"""Loads one kind of eBPF program, the one that says which devices a v2 cgroup may open (bpf(2))."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from galaxy.container.kernel import syscalls

_PROG_LOAD: Final = 5
_PROG_ATTACH: Final = 8
_TYPE_CGROUP_DEVICE: Final = 15
_ATTACH_CGROUP_DEVICE: Final = 6
_BLOCK: Final = 1
_MKNOD: Final = 1 << 16
_ACCESS, _MAJOR, _MINOR = 0, 4, 8
"""Where ``struct bpf_cgroup_dev_ctx`` has its words; the first is rights above, kind of device below."""


def device_program(allowed: tuple[tuple[int, int | None], ...]) -> bytes:
    """Return a program that lets character devices (major, minor or any) be read and written, and no more.

    No block device, no mknod(2), whatever the rights of the caller.
    """
    lines = [_load(2, _ACCESS), _load(3, _MAJOR), _load(4, _MINOR)]
    checks = [2 if minor is not None else 1 for _, minor in allowed]
    left = sum(checks)  # Instructions between here and the refusal, which is two before the permission.
    lines.append(_op(0x45, 2, left, _BLOCK | _MKNOD))  # jset: to the refusal
    for major, minor in allowed:
        if minor is None:
            left -= 1
            lines.append(_op(0x15, 3, left + 2, major))  # jeq: to the permission
            continue
        left -= 2
        lines += [_op(0x55, 3, 1, major), _op(0x15, 4, left + 2, minor)]  # jne: the next one
    for answer in (0, 1):
        lines += [_op(0xB7, 0, 0, answer), _op(0x95, 0, 0, 0)]  # mov, exit
    return b"".join(lines)


def guard_devices(cgroup: str, program: bytes) -> None:
    """Let ``program`` judge every opening of a device in this cgroup and below; again replaces it.

    What the cgroups above forbid stays forbidden.

    Raises:
        OSError: no such system call here, or no right to it (CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN).
    """
    code, license_text = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"BSD")
    load = struct.pack(
        "IIQQIIQII16s", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code),
        ctypes.addressof(license_text), 0, 0, 0, 0, 0, b"galaxy_devices",
    )  # fmt: skip
    loaded = syscalls.bpf(_PROG_LOAD, load, "devices")
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.bpf(_PROG_ATTACH, struct.pack("IIII", fd, loaded, _ATTACH_CGROUP_DEVICE, 0), cgroup)
        finally:
            os.close(fd)
    finally:
        os.close(loaded)


def _load(register: int, offset: int) -> bytes:
    return struct.pack("BBhi", 0x61, 1 << 4 | register, offset, 0)  # From the context, in register 1.


def _op(code: int, register: int, jump: int, value: int) -> bytes:
    return struct.pack("BBhi", code, register, jump, value)
