"""A program in a container sees only what it needs of its host, and cannot escape."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def host(launcher):
    yield launcher
    launcher.clear()


@pytest.fixture
def plan(host):
    plan = host.plan()
    host.launch(plan)
    return plan


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/gshadow", "/root", "/work", "/var/lib/dpkg", "/boot", "/etc/ssh"]
)
def test_secrets_and_private_directories_of_the_host_do_not_exist(host, plan, path: str) -> None:
    assert "No such file" in host.sh(plan, f"ls -d {path}")["out"]


def test_home_has_only_the_workspace_and_the_agents_state_does_not_exist(host, plan) -> None:
    assert host.sh(plan, "ls /home")["out"].split() == ["galaxy"]
    assert "No such file" in host.sh(plan, f"ls {host.state}")["out"]


def test_program_sees_only_processes_of_its_container_and_has_its_own_host_name(host, plan) -> None:
    pids = [int(pid) for pid in host.sh(plan, "ls /proc")["out"].split() if pid.isdecimal()]
    assert len(pids) <= 4
    assert min(pids) == 1
    assert host.sh(plan, "hostname")["out"].strip() == plan.container.replace(".", "-")
    assert socket.gethostname() != plan.container.replace(".", "-")


def test_every_namespace_except_network_and_user_is_private(host, plan) -> None:
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        inside = host.sh(plan, f"readlink /proc/self/ns/{kind}")["out"].strip()
        assert inside.startswith(kind)
        assert inside != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert host.sh(plan, "readlink /proc/self/ns/net")["out"].strip() == os.readlink("/proc/self/ns/net")


def test_private_network_has_only_a_loopback_interface_which_is_up(host) -> None:
    plan = host.plan(demand={"network": "private"})
    host.launch(plan)
    listen = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "c = socket.create_connection(s.getsockname()); print([n for _, n in socket.if_nameindex()])"
    )
    assert "'lo'" in host.python(plan, listen)["out"]
    assert (
        host.sh(plan, "ls /sys/class/net")["out"].split()
        == host.sh(plan, "ls /sys/class/net | grep -v eth")["out"].split()
    )


def test_program_has_no_capabilities_no_new_privileges_and_a_seccomp_filter(host, plan) -> None:
    status = dict(
        line.split(":\t")
        for line in host.sh(plan, "cat /proc/self/status")["out"].splitlines()
        if ":\t" in line
    )
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Uid"].split() == ["65534"] * 4


def test_pid_1_keeps_only_the_capabilities_it_needs(host, plan) -> None:
    init = host.runtime.running()[0]
    with open(f"/proc/{init.pid}/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    assert effective == sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8))


@pytest.mark.parametrize(
    "script",
    ["unshare -U true", "unshare -m true", "mount -t tmpfs x /tmp", "chroot / true", "mknod /tmp/x b 254 0",
     "dmesg", "echo x > /proc/sys/kernel/core_pattern", "test -f /proc/sysrq-trigger", "touch /usr/x",
     "touch /etc/x", "touch /x", "kill -9 1 && sleep 1"],
)  # fmt: skip
def test_escape_attempts_fail(host, plan, script: str) -> None:
    assert host.sh(plan, script)["status"] != 0
    assert host.runtime.running()


def test_escape_attempts_fail_without_the_seccomp_filter_too(host, plan) -> None:
    for script in ("mount -t tmpfs x /tmp", "echo x > /proc/sys/kernel/core_pattern", "chroot / true"):
        assert host.sh(plan, script, unfiltered=True)["status"] != 0


def test_masked_files_of_proc_are_empty_and_sys_is_read_only(host, plan) -> None:
    assert host.sh(plan, "cat /proc/keys /proc/timer_list /proc/kallsyms")["out"] == ""
    assert host.sh(plan, "ls /sys/firmware")["out"] == ""
    flags = host.sh(
        plan, 'awk \'$2=="/sys" || $2=="/proc/sys" || $2=="/" || $2=="/usr" {print $4}\' /proc/mounts'
    )
    assert [options.split(",")[0] for options in flags["out"].split()] == ["ro"] * 4


def test_only_harmless_device_nodes_exist(host, plan) -> None:
    harmless = "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(sorted(host.sh(plan, "ls /dev")["out"].split())) == harmless
    assert host.sh(plan, "head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null")["out"].split() == ["00"] * 4


def test_kernel_refuses_other_devices_to_every_process_in_the_cgroup_even_as_root(host, plan) -> None:
    trees = Path("/sys/fs/cgroup")
    found = [
        *trees.glob(f"devices/{host.cgroup_root}/{plan.key}"),
        *trees.glob(f"{host.cgroup_root}/{plan.key}/init"),
    ]
    assert len(found) == 1
    script = f"""
import os, sys
with open("{found[0]}/cgroup.procs", "w") as procs:
    procs.write("0")
open("/dev/null", "r+b").close()
for attempt in (lambda: open("/dev/kmsg"), lambda: open("/dev/loop-control"),
                lambda: os.mknod("{host.state}/x", 0o60600, os.makedev(7, 0)),
                lambda: os.mknod("{host.state}/x", 0o20600, os.makedev(1, 3))):
    try:
        attempt()
        sys.exit("not refused")
    except PermissionError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_no_descriptor_of_the_launcher_is_open_in_pid_1_or_a_program(host, plan) -> None:
    fds = {int(fd) for fd in host.ask(plan, config=True)["fds"]}
    init = host.runtime.running()[0]
    known = ("socket:", "/", "anon_inode:[eventfd]")  # The kernel tells of OOM through an eventfd.
    for fd in fds:
        try:
            target = os.readlink(f"/proc/{init.pid}/fd/{fd}")
        except FileNotFoundError:
            continue  # The descriptor of the listing itself.
        assert target == "/dev/null" or "cgroup" in target or target.startswith(known), target
        assert "launcher" not in target, target
    assert host.sh(plan, "ls /proc/self/fd")["out"].split() == ["0", "1", "2", "3"]


def test_environment_of_the_agent_does_not_reach_pid_1(host, monkeypatch) -> None:
    monkeypatch.setenv("GALAXY_REDIS", "redis://:secret@localhost")
    plan = host.plan(5)
    launched = host.launch(plan)
    with open(f"/proc/{launched.pid}/environ", "rb") as environment:
        assert b"secret" not in environment.read()


def test_python_resolves_user_and_host_names(host, plan) -> None:
    script = (
        "import socket, pwd, os; print(pwd.getpwuid(os.getuid()).pw_name, socket.gethostbyname('localhost'))"
    )
    assert host.python(plan, script)["out"].split() == ["nobody", "127.0.0.1"]


def test_further_system_directories_are_mounted_read_only_on_request(host, tmp_path_factory) -> None:
    place = f"/opt/gxt-{os.getpid()}"
    os.mkdir(place)
    try:
        with open(f"{place}/hello", "w") as file:
            file.write("hi")
        plan = host.plan(7, system_dirs=(place,))
        host.launch(plan)
        assert host.sh(plan, f"cat {place}/hello; touch {place}/x")["out"].startswith("hi")
        assert os.listdir(place) == ["hello"]
    finally:
        os.unlink(f"{place}/hello")
        os.rmdir(place)
