"""The filter, run instruction by instruction for both machines, and by the kernel for this one."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

import pytest

from galaxy.container.kernel import seccomp, syscalls

ALLOW = 0x7FFF0000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Interpret the program for one system call, as the kernel would."""
    arguments = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("iIQ6Q", number, ARCHITECTURES[machine] if arch is None else arch, 0, *arguments)
    code = [
        struct.unpack_from("HBBI", seccomp.program(machine), at)
        for at in range(0, len(seccomp.program(machine)), 8)
    ]
    at = accumulator = 0
    while True:
        opcode, then, otherwise, value = code[at]
        at += 1
        if opcode == 0x06:
            return value
        if opcode == 0x20:
            accumulator = struct.unpack_from("I", data, value)[0]
        else:
            truth = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
                opcode
            ]
            at += then if truth else otherwise


def refused(code: int) -> int:
    return code & 0xFFFF if code & 0xFFFF0000 == 0x00050000 else 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_listed_call_is_refused(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    for numbers in seccomp.REFUSED.values():
        if numbers[column] >= 0:
            assert refused(answer(machine, numbers[column])) == errno.EPERM
    for numbers in seccomp.MISSING.values():
        assert refused(answer(machine, numbers[column])) == errno.ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_number_is_listed_twice(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    numbers = [
        pair[column] for pair in (*seccomp.REFUSED.values(), *seccomp.MISSING.values()) if pair[column] >= 0
    ]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_clone_is_allowed_without_and_refused_with_a_namespace_flag(machine: str) -> None:
    clone = seccomp.CLONE[0 if machine == "x86_64" else 1]
    assert answer(machine, clone, 0x11) == ALLOW
    assert answer(machine, clone, 0x3D0F00) == ALLOW  # A thread.
    for flag in (
        syscalls.CLONE_NEWUSER,
        syscalls.CLONE_NEWNS,
        syscalls.CLONE_NEWNET,
        syscalls.CLONE_NEWCGROUP,
    ):
        assert refused(answer(machine, clone, 0x11 | flag)) == errno.EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_sockets_and_ioctls_are_looked_at_by_argument(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    assert answer(machine, seccomp.SOCKET[column], 2) == ALLOW
    assert refused(answer(machine, seccomp.SOCKET[column], 40)) == errno.EAFNOSUPPORT
    assert answer(machine, seccomp.IOCTL[column], 1, 0x5401) == ALLOW
    assert refused(answer(machine, seccomp.IOCTL[column], 1, 0x5412)) == errno.EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_limits_of_pid_1_are_not_a_programs_to_change_but_its_own_are(machine: str) -> None:
    prlimit = seccomp.PRLIMIT64[0 if machine == "x86_64" else 1]
    assert refused(answer(machine, prlimit, 1, 7)) == errno.EPERM
    assert answer(machine, prlimit, 0, 7) == answer(machine, prlimit, 4711, 7) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_ordinary_calls_are_allowed(machine: str) -> None:
    read_write_close_exit_openat = {"x86_64": (0, 1, 3, 60, 257), "aarch64": (63, 64, 57, 93, 56)}
    for number in read_write_close_exit_openat[machine]:
        assert answer(machine, number) == ALLOW


def test_another_architecture_is_killed_and_x32_is_missing() -> None:
    assert answer("x86_64", 1, arch=0x40000003) == 0x80000000
    assert refused(answer("x86_64", 0x40000001)) == errno.ENOSYS


def test_unknown_machine_has_no_program() -> None:
    assert seccomp.program("riscv64") == b""


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no filter for this machine")
def test_kernel_takes_the_filter_and_refuses_unshare_in_a_child() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.set_no_new_privileges()
            syscalls.install_seccomp(seccomp.program())
            libc = ctypes.CDLL(None, use_errno=True)
            libc.unshare(syscalls.CLONE_NEWUSER)
            os.write(write, str(ctypes.get_errno()).encode())
            child = os.fork()  # Threads and processes are still made.
            if child == 0:
                os._exit(7)
            os.write(write, b" %d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as said:
        assert said.read() == f"{errno.EPERM} 7"
