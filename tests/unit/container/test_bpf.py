"""The eBPF program for devices, run by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import struct

import pytest

from galaxy.container.cgroup.bpf import device_program

CHAR, BLOCK = 2, 1
MKNOD, READ, WRITE = 1, 2, 4
PROGRAM = device_program(((1, 3), (5, 2), (136, None), (1, 9)))


def verdict(program: bytes, access: int, kind: int, major: int, minor: int) -> int:
    """Return the program's result; checks that every jump is forward, as the kernel requires."""
    lines = [struct.unpack_from("BBhi", program, at) for at in range(0, len(program), 8)]
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers: dict[int, int] = {}
    at = 0
    while True:
        code, both, jump, value = lines[at]
        register = both & 15
        at += 1
        if code == 0x61:
            registers[register] = context[jump]
        elif code == 0xB7:
            registers[register] = value
        elif code == 0x95:
            return registers[0]
        else:
            assert jump >= 0
            found = registers[register]
            holds = {0x15: found == value, 0x55: found != value, 0x45: bool(found & value)}[code]
            at += jump if holds else 0


@pytest.mark.parametrize("device", [(1, 3), (5, 2), (136, 0), (136, 77), (1, 9)])
def test_allowed_device_may_be_read_and_written_but_not_created(device: tuple[int, int]) -> None:
    assert verdict(PROGRAM, READ | WRITE, CHAR, *device) == 1
    assert verdict(PROGRAM, MKNOD, CHAR, *device) == 0
    assert verdict(PROGRAM, READ, BLOCK, *device) == 0


@pytest.mark.parametrize("device", [(1, 1), (1, 2), (1, 4), (3, 1), (5, 3), (10, 237), (254, 0), (2, 5)])
def test_other_devices_may_not_be_opened(device: tuple[int, int]) -> None:
    for access in (READ, WRITE, READ | WRITE, MKNOD):
        for kind in (CHAR, BLOCK):
            assert verdict(PROGRAM, access, kind, *device) == 0


def test_program_without_devices_refuses_everything() -> None:
    assert verdict(device_program(()), READ, CHAR, 1, 3) == 0
