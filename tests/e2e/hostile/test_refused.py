"""Attacks on the host fail, from a program of an ordinary user and from one of root."""

from __future__ import annotations

import json
import os
import platform

import pytest

from galaxy.units import MIB
from tests.e2e.hostile.attacks import SCRIPT
from tests.support.hostile import NOBODY

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the attacks use system call numbers of x86_64"
)

FILTERED = [
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clone_pid", "clone_user", "delete_module",
    "fanotify_init", "finit_module", "fsopen", "init_module", "ioperm", "iopl", "kcmp", "kexec_load",
    "keyctl", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "open_by_handle_at", "open_tree",
    "perf_event_open", "pidfd_getfd", "pivot_root", "process_vm_readv", "ptrace_pid_1",
    "ptrace_seize_parent", "ptrace_traceme", "quotactl", "reboot", "request_key", "sethostname", "setns",
    "settimeofday", "swapon", "syslog", "tiocsti", "umount", "unshare_mount", "unshare_net", "unshare_user",
    "userfaultfd", "vhangup",
]  # fmt: skip
MISSING = [
    "clone3_user", "io_uring", "x32",
]  # fmt: skip
WITHOUT_RIGHTS = [
    "capset", "chown", "interface_flags", "io_realtime", "mknod_block", "mknod_char", "raise_limit",
    "realtime", "setgroups", "setuid_other", "socket_packet", "socket_raw", "socket_raw6",
]  # fmt: skip
DENIED = [
    "follow /proc/1/cwd", "follow /proc/1/exe", "follow /proc/1/ns/mnt", "follow /proc/1/ns/pid",
    "follow /proc/1/root", "list /proc/1/map_files", "list /proc/1/root", "low_port", "nice", "own_oom",
    "open descriptors of PID 1", "read /proc/1/auxv", "read /proc/1/environ", "read /proc/1/maps",
    "read /proc/1/mem", "read /proc/1/stack", "read the supervisor's environ", "read the supervisor's mem",
]  # fmt: skip
READ_ONLY = [
    "chmod /dev/null", "mkdir /dev/x", "mkdir /etc/x", "mkdir /home/x", "mkdir /usr/x", "mkdir /var/lib/x",
    "mkdir /x",
]  # fmt: skip
NOT_THERE = [
    f"write /dev/{name}" for name in ("mem", "kmsg", "loop0", "loop-control", "sda", "vda", "fuse", "net/tun")
]
HARMLESS = {"ENOENT", "EACCES", "EROFS", "EPERM", 'done "null"'}
"""Outcomes of opening a kernel file that is missing, read-only, or masked by /dev/null."""
SECRETS = ("/etc/shadow", "/etc/gshadow", "/root", "/work", "/boot", "/var/lib/galaxy", "/run/systemd")


@pytest.fixture(scope="module", params=[NOBODY, 0], ids=["nobody", "root"])
def attacked(request, host):
    """Run all attacks as one user; yield (uid, container, facts about the host, outcome of each attack)."""
    other = host.container("other")
    container = host.container("evil", uid=request.param, memory_bytes=128 * MIB, cpu_milli=1000)
    runtime = host.runtime
    about = {
        "secrets": [*SECRETS, str(host.state), os.getcwd(), f"/proc/{other.pid}/environ"],
        "sockets": [
            str(runtime.socket_path(other.name, 1)),
            str(runtime.socket_path(container.name, 1)),
            str(host.state / "launcher.sock"),
        ],
        "pids": [os.getpid(), other.pid, container.pid],
    }
    found = container.facts(SCRIPT, json.dumps(about), timeout_s=90.0)
    yield request.param, container, about, found
    container.destroy()
    other.destroy()


def of(found: dict[str, str], names: list[str]) -> dict[str, str]:
    return {name: found[name] for name in names}


def test_calls_that_affect_the_host_fail_with_eperm_in_the_filter(attacked) -> None:
    assert of(attacked[3], FILTERED) == dict.fromkeys(FILTERED, "EPERM")


def test_calls_with_a_fallback_fail_with_enosys(attacked) -> None:
    assert of(attacked[3], MISSING) == dict.fromkeys(MISSING, "ENOSYS")


def test_system_call_of_another_architecture_kills_the_program(attacked) -> None:
    assert attacked[3]["int80"] == "signal 31"


def test_capabilities_are_gone_even_for_root(attacked) -> None:
    assert of(attacked[3], WITHOUT_RIGHTS) == dict.fromkeys(WITHOUT_RIGHTS, "EPERM")
    assert attacked[3]["socket_alg"] == attacked[3]["socket_vsock"] == "EAFNOSUPPORT"


def test_pid_1_and_the_supervisor_of_a_command_cannot_be_inspected(attacked) -> None:
    assert of(attacked[3], DENIED) == dict.fromkeys(DENIED, "EACCES")


def test_system_directories_are_read_only_and_devices_do_not_exist(attacked) -> None:
    found = attacked[3]
    assert of(found, READ_ONLY) == dict.fromkeys(READ_ONLY, "EROFS")
    assert of(found, NOT_THERE) == dict.fromkeys(NOT_THERE, "ENOENT")
    assert found["above the root"] == "done true"


def test_no_kernel_setting_can_be_opened_for_writing(attacked) -> None:
    found = attacked[3]
    settings = [name for name in found if name.startswith("write ")]
    assert {found[name] for name in settings} <= HARMLESS, of(found, settings)
    for name in ("write /proc/sys/kernel/core_pattern", "write /usr/bin/env"):
        assert found[name] == ("EROFS" if attacked[0] == 0 else "EACCES")
    assert found["write /etc/passwd"] == "EACCES"  # A link to the container's own file in /run.
    assert found["writable in /proc and /sys"] == "done []"


def test_no_cgroup_is_visible(attacked) -> None:
    assert attacked[3]["cgroup files"] == "done []"
    assert attacked[3]["mkdir /sys/fs/cgroup/x"] == "ENOENT"


def test_secrets_state_and_sockets_of_the_host_do_not_exist(attacked) -> None:
    _, _, about, found = attacked
    names = [f"read {path}" for path in about["secrets"]] + [f"connect {path}" for path in about["sockets"]]
    assert of(found, names) == dict.fromkeys(names, "ENOENT")


def test_processes_of_the_host_and_of_other_containers_do_not_exist(attacked) -> None:
    _, _, about, found = attacked
    names = [f"kill host {pid}" for pid in about["pids"]]
    assert of(found, names) == dict.fromkeys(names, "ENOENT")
    assert json.loads(found["visible processes"].removeprefix("done ")) == [
        "galaxy-appworke", "galaxy-exec", "python3", "sleep",
    ]  # fmt: skip


def test_program_inherits_only_its_standard_streams(attacked) -> None:
    assert json.loads(attacked[3]["descriptors"].removeprefix("done ")) == ["/dev/null", "pipe"]


def test_pid_1_survives_sigkill_and_sigstop_from_inside(attacked) -> None:
    uid, container, _, found = attacked
    # Root may send them, but the kernel drops signals from inside that PID 1 has no handler for.
    expected = "done null" if uid == 0 else "EPERM"
    assert found["kill_pid_1"] == found["stop_pid_1"] == expected
    assert container.alive
    assert container.sh("echo still here")[1] == "still here\n"


def test_limits_and_oom_score_of_pid_1_cannot_be_changed(attacked) -> None:
    uid, container, _, found = attacked
    if uid == 0:
        # Root can harm the AppWorker of its own container, and nothing else.
        assert (found["prlimit_pid_1"], found["pid_1_oom"]) == ("EPERM", "done 4")
    else:
        assert (found["prlimit_pid_1"], found["pid_1_oom"]) == ("EPERM", "EACCES")
    assert container.alive


def test_every_attack_has_an_expected_outcome(attacked) -> None:
    known = {*FILTERED, *MISSING, *WITHOUT_RIGHTS, *DENIED, *READ_ONLY, *NOT_THERE}
    known |= {
        "int80",
        "socket_alg",
        "socket_vsock",
        "above the root",
        "writable in /proc and /sys",
        "cgroup files",
    }
    known |= {"mkdir /sys/fs/cgroup/x", "visible processes", "descriptors", "kill_pid_1", "stop_pid_1"}
    known |= {"prlimit_pid_1", "pid_1_oom"}
    rest = {name for name in attacked[3] if name not in known}
    assert not {name for name in rest if name.split()[0] not in ("read", "connect", "kill", "write")}
