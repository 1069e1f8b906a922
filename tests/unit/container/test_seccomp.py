"""The seccomp filter: interpreted for both architectures, and installed in this host's kernel."""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys

import pytest

from galaxy.container.kernel import prctl, seccomp, syscalls
from galaxy.container.kernel.allowed_syscalls import ALLOWED

ALLOW = 0x7FFF0000
KILL = 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003
X32_BIT = 0x40000000

EPERM: dict[str, tuple[int, int]] = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, -1),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262), "vhangup": (153, 58), "sethostname": (170, 161),
    "setdomainname": (171, 162), "nfsservctl": (180, 42), "ioperm": (173, -1), "iopl": (172, -1),
    "uselib": (134, -1), "sysfs": (139, -1), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "lsm_set_self_attr": (460, 460),
}  # fmt: skip
ENOSYS: dict[str, tuple[int, int]] = {
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "after the newest": (468, 468), "far above": (5000, 5000),
    "gap": (400, 250), "last before the new block": (423, 423), "largest": (X32_BIT - 1, 0xFFFFFFFF),
}  # fmt: skip
ALLOW_ALWAYS: dict[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "openat": (257, 56), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "execve": (59, 221),
    "exit_group": (231, 94),
    "fork": (57, -1), "vfork": (58, -1), "wait4": (61, 260), "kill": (62, 129), "futex": (202, 98),
    "set_robust_list": (273, 99), "rseq": (334, 293), "getrandom": (318, 278), "statx": (332, 291),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "pipe2": (293, 59), "accept4": (288, 242),
    "sendmsg": (46, 211), "recvmsg": (47, 212), "clock_nanosleep": (230, 115),
    "sched_setaffinity": (203, 122),
    "memfd_create": (319, 279), "close_range": (436, 436), "openat2": (437, 437), "faccessat2": (439, 439),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "mseal": (462, 462), "seccomp": (317, 277),
    "prctl": (157, 167), "arch_prctl": (158, -1), "inotify_add_watch": (254, 27), "setxattrat": (463, 463),
}  # fmt: skip
MACHINES = [pytest.param(machine, column, id=machine) for column, machine in enumerate(ARCHITECTURES)]


def answer(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Return the filter's answer to one system call."""
    return interpret(machine, number, arguments, arch)[0]


def interpret(machine: str, number: int, arguments: tuple[int, ...], arch: int | None) -> tuple[int, int]:
    """Interpret the filter as the kernel does; return its answer and how many instructions that took."""
    arguments = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("IIQ6Q", number, ARCHITECTURES[machine] if arch is None else arch, 0, *arguments)
    code = list(struct.iter_unpack("HBBI", seccomp.program(machine)))
    at = accumulator = steps = 0
    while True:
        opcode, then, otherwise, value = code[at]
        at += 1
        steps += 1
        if opcode == 0x06:
            return value, steps
        if opcode == 0x20:
            accumulator = struct.unpack_from("I", data, value)[0]
        else:
            tests = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += then if tests[opcode] else otherwise


def error(code: int) -> int:
    """Return the errno of an answer; 0 when it is not an errno."""
    return code & 0xFFFF if code & 0xFFFF0000 == 0x00050000 else 0


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_calls_that_affect_more_than_the_container_fail_with_eperm(machine: str, column: int) -> None:
    listed = {name: pair[column] for name, pair in EPERM.items() if pair[column] >= 0}
    found = {name: error(answer(machine, number)) for name, number in listed.items()}
    assert found == dict.fromkeys(listed, errno.EPERM)


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_unknown_numbers_and_calls_with_a_fallback_fail_with_enosys(machine: str, column: int) -> None:
    found = {name: error(answer(machine, pair[column])) for name, pair in ENOSYS.items()}
    assert found == dict.fromkeys(ENOSYS, errno.ENOSYS)


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_calls_of_ordinary_programs_are_allowed(machine: str, column: int) -> None:
    listed = {name: pair[column] for name, pair in ALLOW_ALWAYS.items() if pair[column] >= 0}
    assert {name: answer(machine, number) for name, number in listed.items()} == dict.fromkeys(listed, ALLOW)


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_filter_allows_the_listed_numbers_and_no_other(machine: str, column: int) -> None:
    conditional = {"clone", "socket", "ioctl", "personality", "prlimit64"}
    listed = {pair[column] for name, pair in ALLOWED.items() if name not in conditional}
    undecided = {ALLOWED[name][column] for name in conditional}
    allowed = {number for number in range(1024) if answer(machine, number) == ALLOW}
    assert allowed - undecided == listed - {-1}


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_no_number_has_two_names(machine: str, column: int) -> None:
    numbers = [pair[column] for pair in (*ALLOWED.values(), *EPERM.values()) if pair[column] >= 0]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("machine", "clone"), [("x86_64", 56), ("aarch64", 220)])
def test_clone_is_allowed_for_threads_and_processes_and_refused_with_any_namespace_flag(
    machine: str, clone: int
) -> None:
    assert answer(machine, clone, 0x11) == ALLOW
    assert answer(machine, clone, 0x3D0F00) == ALLOW  # A thread.
    for flag in (
        syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWNS, syscalls.CLONE_NEWNET, syscalls.CLONE_NEWCGROUP,
        syscalls.CLONE_NEWPID, syscalls.CLONE_NEWUTS, syscalls.CLONE_NEWIPC,
    ):  # fmt: skip
        assert error(answer(machine, clone, 0x11 | flag)) == errno.EPERM


@pytest.mark.parametrize(("machine", "socket"), [("x86_64", 41), ("aarch64", 198)])
def test_socket_families_of_the_kernels_crypto_and_of_hypervisors_are_not_supported(
    machine: str, socket: int
) -> None:
    assert [answer(machine, socket, family) for family in (1, 2, 10, 16, 39, 41)] == [ALLOW] * 6
    assert [error(answer(machine, socket, family)) for family in (38, 40)] == [errno.EAFNOSUPPORT] * 2


@pytest.mark.parametrize(("machine", "ioctl"), [("x86_64", 16), ("aarch64", 29)])
def test_ioctl_that_types_into_a_terminal_is_refused(machine: str, ioctl: int) -> None:
    assert answer(machine, ioctl, 1, 0x5401) == ALLOW
    assert error(answer(machine, ioctl, 1, 0x5412)) == errno.EPERM
    assert error(answer(machine, ioctl, 1, 0x541C)) == errno.EPERM
    assert error(answer(machine, ioctl, 1, 0xFFFFFFFF_00005412)) == errno.EPERM  # The kernel truncates.


@pytest.mark.parametrize(("machine", "personality"), [("x86_64", 135), ("aarch64", 92)])
def test_personality_may_be_asked_for_and_set_to_linux_only(machine: str, personality: int) -> None:
    allowed = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    assert [answer(machine, personality, value) for value in allowed] == [ALLOW] * 5
    for value in (0x0040000, 0x0100000, 0x0400000, 1):  # The first is ADDR_NO_RANDOMIZE.
        assert error(answer(machine, personality, value)) == errno.EPERM


@pytest.mark.parametrize(("machine", "prlimit64"), [("x86_64", 302), ("aarch64", 261)])
def test_limits_of_pid_1_cannot_be_changed_but_others_can(machine: str, prlimit64: int) -> None:
    assert error(answer(machine, prlimit64, 1, 7)) == errno.EPERM
    assert answer(machine, prlimit64, 0, 7) == answer(machine, prlimit64, 4711, 7) == ALLOW


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_call_of_another_architecture_kills_the_process(machine: str, column: int) -> None:
    for number in (1, 20, 400):
        assert answer(machine, number, arch=I386) == KILL
    assert answer(machine, 1, arch=list(ARCHITECTURES.values())[1 - column]) == KILL


@pytest.mark.parametrize("number", [0, 1, 39, 59, 512, 547])
def test_x32_calls_do_not_exist(number: int) -> None:
    assert error(answer("x86_64", X32_BIT | number)) == errno.ENOSYS


def test_machine_without_a_filter_has_an_empty_program() -> None:
    assert seccomp.program("riscv64") == b""


@pytest.mark.parametrize(("machine", "column"), MACHINES)
def test_no_call_takes_more_than_twenty_instructions(machine: str, column: int) -> None:
    assert max(interpret(machine, number, (), None)[1] for number in range(512)) <= 20


PROBE = """
import ctypes, errno, os, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def attempt(number, *arguments):
    return errno.errorcode.get(ctypes.get_errno(), "?") if libc.syscall(number, *arguments) < 0 else "done"
print(attempt(UNSHARE, 0x10000000), attempt(5000))
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()
print(subprocess.run(["/bin/echo", "child"], capture_output=True, text=True, check=True).stdout.strip())
"""


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no filter for this machine")
def test_kernel_accepts_the_filter_and_a_program_runs_with_it() -> None:
    unshare = EPERM["unshare"][list(ARCHITECTURES).index(platform.machine())]
    filtered = prctl.SeccompFilter(seccomp.program())
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            prctl.set_no_new_privileges()
            filtered.install()
            script = PROBE.replace("UNSHARE", str(unshare))
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", script])
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read) as out:
        assert out.read().split() == ["EPERM", "ENOSYS", "thread", "child"]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
