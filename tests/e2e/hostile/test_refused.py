"""What a program must not do is refused, to the run_user and to root where an operator grants it."""

from __future__ import annotations

import json
import os
import platform

import pytest

from galaxy.units import MIB
from tests.e2e.hostile.attacks import SCRIPT
from tests.support.hostile import NOBODY

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks know x86-64's numbers")

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
    "follow /proc/1/root", "list /proc/1/map_files", "list /proc/1/root", "low_port", "nice", "nobodys_oom",
    "open descriptors of PID 1", "read /proc/1/auxv", "read /proc/1/environ", "read /proc/1/maps",
    "read /proc/1/mem", "read /proc/1/stack", "read the keeper's environ", "read the keeper's mem",
]  # fmt: skip
READ_ONLY = [
    "chmod /dev/null", "mkdir /dev/x", "mkdir /etc/x", "mkdir /home/x", "mkdir /usr/x", "mkdir /var/lib/x",
    "mkdir /x",
]  # fmt: skip
NOT_THERE = [
    f"write /dev/{name}" for name in ("mem", "kmsg", "loop0", "loop-control", "sda", "vda", "fuse", "net/tun")
]
HARMLESS = {"ENOENT", "EACCES", "EROFS", "EPERM", 'done "null"'}
"""How a file of the kernel answers that may be missing, unwritable, or covered by /dev/null."""
SECRETS = ("/etc/shadow", "/etc/gshadow", "/root", "/work", "/boot", "/var/lib/galaxy", "/run/systemd")


@pytest.fixture(scope="module", params=[NOBODY, 0], ids=["nobody", "root"])
def tried(request, world):
    """Everything tried by a program of that user: (the user, its container, attack to outcome)."""
    other = world.container("other")
    container = world.container("evil", uid=request.param, memory_bytes=128 * MIB, cpu_milli=1000)
    runtime = world.runtime
    host = {
        "secrets": [*SECRETS, str(world.state), os.getcwd(), f"/proc/{other.pid}/environ"],
        "sockets": [
            str(runtime.socket_path(other.name, 1)),
            str(runtime.socket_path(container.name, 1)),
            str(world.state / "launcher.sock"),
        ],
        "pids": [os.getpid(), other.pid, container.pid],
    }
    found = container.facts(SCRIPT, json.dumps(host), timeout_s=90.0)
    yield request.param, container, host, found
    container.destroy()
    other.destroy()


def of(found: dict[str, str], names: list[str]) -> dict[str, str]:
    return {name: found[name] for name in names}


def test_calls_that_lead_out_are_answered_with_eperm_by_the_filter(tried) -> None:
    assert of(tried[3], FILTERED) == dict.fromkeys(FILTERED, "EPERM")


def test_calls_that_have_another_way_do_not_exist(tried) -> None:
    assert of(tried[3], MISSING) == dict.fromkeys(MISSING, "ENOSYS")


def test_calls_of_another_machine_end_the_program(tried) -> None:
    assert tried[3]["int80"] == "signal 31"


def test_rights_are_gone_even_from_root(tried) -> None:
    assert of(tried[3], WITHOUT_RIGHTS) == dict.fromkeys(WITHOUT_RIGHTS, "EPERM")
    assert tried[3]["socket_alg"] == tried[3]["socket_vsock"] == "EAFNOSUPPORT"


def test_pid_1_and_the_keeper_of_a_command_show_nothing_of_themselves(tried) -> None:
    assert of(tried[3], DENIED) == dict.fromkeys(DENIED, "EACCES")


def test_root_and_system_are_read_only_and_devices_are_not_there(tried) -> None:
    found = tried[3]
    assert of(found, READ_ONLY) == dict.fromkeys(READ_ONLY, "EROFS")
    assert of(found, NOT_THERE) == dict.fromkeys(NOT_THERE, "ENOENT")
    assert found["above the root"] == "done true"


def test_no_switch_of_the_kernel_can_be_opened_for_writing(tried) -> None:
    found = tried[3]
    switches = [name for name in found if name.startswith("write ")]
    assert {found[name] for name in switches} <= HARMLESS, of(found, switches)
    for name in ("write /proc/sys/kernel/core_pattern", "write /usr/bin/env"):
        assert found[name] == ("EROFS" if tried[0] == 0 else "EACCES")
    assert found["write /etc/passwd"] == "EACCES"  # The container's own, in its /run.
    assert found["writable in /proc and /sys"] == "done []"


def test_there_is_no_cgroup_to_write_to(tried) -> None:
    assert tried[3]["cgroup files"] == "done []"
    assert tried[3]["mkdir /sys/fs/cgroup/x"] == "ENOENT"


def test_secrets_state_and_sockets_of_the_host_are_out_of_sight(tried) -> None:
    _, _, host, found = tried
    names = [f"read {path}" for path in host["secrets"]] + [f"connect {path}" for path in host["sockets"]]
    assert of(found, names) == dict.fromkeys(names, "ENOENT")


def test_processes_of_the_host_and_of_other_containers_are_out_of_sight(tried) -> None:
    _, _, host, found = tried
    names = [f"kill host {pid}" for pid in host["pids"]]
    assert of(found, names) == dict.fromkeys(names, "ENOENT")
    assert json.loads(found["others' processes"].removeprefix("done ")) == [
        "galaxy-appworke", "galaxy-exec", "python3", "sleep",
    ]  # fmt: skip


def test_program_inherits_its_three_streams_and_no_other_descriptor(tried) -> None:
    assert json.loads(tried[3]["descriptors"].removeprefix("done ")) == ["/dev/null", "pipe"]


def test_pid_1_outlives_kill_and_stop_from_inside(tried) -> None:
    uid, container, _, found = tried
    # Root may send them, and the kernel drops what PID 1 has no handler for.
    expected = "done null" if uid == 0 else "EPERM"
    assert found["kill_pid_1"] == found["stop_pid_1"] == expected
    assert container.alive
    assert container.sh("echo still here")[1] == "still here\n"


def test_limits_and_oom_score_of_pid_1_are_not_run_users_to_change(tried) -> None:
    uid, container, _, found = tried
    if uid == 0:
        # Root in its own container may spoil its own AppWorker, and nothing beside it.
        assert (found["prlimit_pid_1"], found["pid_1_oom"]) == ("EPERM", "done 4")
    else:
        assert (found["prlimit_pid_1"], found["pid_1_oom"]) == ("EPERM", "EACCES")
    assert container.alive


def test_every_attack_is_looked_at(tried) -> None:
    known = {*FILTERED, *MISSING, *WITHOUT_RIGHTS, *DENIED, *READ_ONLY, *NOT_THERE}
    known |= {
        "int80",
        "socket_alg",
        "socket_vsock",
        "above the root",
        "writable in /proc and /sys",
        "cgroup files",
    }
    known |= {"mkdir /sys/fs/cgroup/x", "others' processes", "descriptors", "kill_pid_1", "stop_pid_1"}
    known |= {"prlimit_pid_1", "pid_1_oom"}
    rest = {name for name in tried[3] if name not in known}
    assert not {name for name in rest if name.split()[0] not in ("read", "connect", "kill", "write")}
