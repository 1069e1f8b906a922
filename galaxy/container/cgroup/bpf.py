"""Build and attach the eBPF program that decides which devices a v2 cgroup may open (bpf(2))."""

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
"""Offsets in ``struct bpf_cgroup_dev_ctx``. The upper 16 bits of the first word are the access."""


def device_program(allowed: tuple[tuple[int, int | None], ...]) -> bytes:
    """Return a program that allows reading and writing the character devices ``allowed``, and nothing else.

    A device is (major, minor); a minor of None means any. Block devices and mknod(2) are refused,
    whatever capabilities the caller has.
    """
    instructions = [_load(2, _ACCESS), _load(3, _MAJOR), _load(4, _MINOR)]
    checks = [2 if minor is not None else 1 for _, minor in allowed]
    left = sum(checks)  # Instructions between here and "return 0"; "return 1" is two instructions later.
    instructions.append(_op(0x45, 2, left, _BLOCK | _MKNOD))  # jset: to "return 0"
    for major, minor in allowed:
        if minor is None:
            left -= 1
            instructions.append(_op(0x15, 3, left + 2, major))  # jeq: to "return 1"
            continue
        left -= 2
        instructions += [_op(0x55, 3, 1, major), _op(0x15, 4, left + 2, minor)]  # jne: to the next device
    for answer in (0, 1):
        instructions += [_op(0xB7, 0, 0, answer), _op(0x95, 0, 0, 0)]  # mov, exit
    return b"".join(instructions)


def guard_devices(cgroup: str, program: bytes) -> None:
    """Attach ``program`` to a cgroup, for every open and mknod in it and below; replace an earlier one.

    The programs of parent cgroups still apply.

    Raises:
        OSError: the kernel has no bpf(2), or the caller lacks CAP_BPF (or CAP_SYS_ADMIN) and CAP_NET_ADMIN.
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
    # BPF_LDX | BPF_MEM | BPF_W; register 1 holds the context.
    return struct.pack("BBhi", 0x61, 1 << 4 | register, offset, 0)


def _op(code: int, register: int, jump: int, value: int) -> bytes:
    return struct.pack("BBhi", code, register, jump, value)
