"""Containers are launched, adopted and destroyed: no trace stays, no end is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.kernel import processes
from galaxy.container.launcher.directory import make_directory
from galaxy.container.launcher.protocol import ContainerRef
from galaxy.container.limits import limits_of
from galaxy.container.runtime import Destroyed, Ended, Launched, LauncherLost, LaunchFailed
from galaxy.errors import Conflict
from galaxy.model.messages.container import VolumeDemand
from galaxy.units import MIB
from tests.support.waiting import until

pytestmark = pytest.mark.root


def loops(state: Path) -> str:
    return "".join(
        line
        for line in subprocess.check_output(["losetup", "-a"], text=True).splitlines()
        if state.name in line
    )


def wait_gone(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], f"{pid} still runs"
    finally:
        os.close(fd)


def test_destroy_leaves_no_process_mount_cgroup_loop_or_directory(host) -> None:
    disk = VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB)
    plan = host.plan(demand={"workspace": disk})
    launched = host.launch(plan)
    pid = host.sh(plan, "exec setsid sh -c 'sleep 1000 & sleep 1000'", wait=False)["pid"]
    assert pid > 1
    inside = CgroupTree.of_host(host.cgroup_root).pids(plan.key)
    assert launched.pid in inside
    assert host.state.name in loops(host.state)
    host.destroy(plan)
    for one in inside:
        wait_gone(one)
    assert CgroupTree.of_host(host.cgroup_root).container_keys() == []
    assert str(host.state) not in Path("/proc/mounts").read_text()
    assert not (host.state / "c" / plan.key).exists()
    assert (host.state / "logs" / plan.key).is_dir()
    host.stop()  # The launcher deletes its garbage first.
    assert os.listdir(host.state / "garbage") == []
    assert loops(host.state) == ""


def test_destroying_a_container_twice_or_an_unknown_one_is_answered(host) -> None:
    plan = host.plan()
    host.launch(plan)
    host.destroy(plan)
    host.destroy(plan)
    host.destroy(host.plan(99))


def test_launching_twice_creates_one_container(host) -> None:
    plan = host.plan()
    first = host.launch(plan)
    second = host.launch(plan)
    assert first == second
    assert len(host.runtime.running()) == 1


def test_exit_code_of_pid_1_is_reported_and_again_to_the_next_agent(host) -> None:
    plan = host.plan()
    host.launch(plan)
    with pytest.raises((ConnectionResetError, ValueError)):
        host.ask(plan, exit=7)
    ended = host.event(plan, Ended)
    assert (ended.status, ended.oom) == (7, False)
    host.restart_agent()
    assert host.event(plan, Ended) == ended
    assert host.runtime.running() == []


def test_killing_pid_1_kills_its_programs(host) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    host.sh(plan, "sleep 1000", wait=False)
    inside = CgroupTree.of_host(host.cgroup_root).pids(plan.key)
    os.kill(launched.pid, signal.SIGKILL)
    assert host.event(plan, Ended).status == -9
    for pid in inside:
        wait_gone(pid)


def test_container_keeps_running_without_its_agent_and_the_next_agent_finds_it(host) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    host.restart_agent()
    (init,) = host.runtime.running()
    assert (init.pid, init.start_ticks) == (launched.pid, launched.start_ticks)
    assert host.sh(plan, "echo alive")["out"] == "alive\n"


def test_container_keeps_running_without_its_launcher_and_the_next_one_adopts_and_destroys_it(host) -> None:
    plan = host.plan(demand={"workspace": VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB)})
    launched = host.launch(plan)
    old = host.launcher_pid()
    os.kill(old, signal.SIGKILL)
    host.until(lambda event: isinstance(event, LauncherLost))
    again = host.launch(plan)
    assert (again.pid, again.start_ticks) == (launched.pid, launched.start_ticks)
    assert host.launcher_pid() != old
    assert host.sh(plan, "echo alive")["out"] == "alive\n"
    host.destroy(plan)
    wait_gone(launched.pid)
    assert CgroupTree.of_host(host.cgroup_root).container_keys() == []


def test_end_of_an_adopted_container_is_reported_without_a_status(host) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    os.kill(host.launcher_pid(), signal.SIGKILL)
    host.until(lambda event: isinstance(event, LauncherLost))
    host.launch(plan)
    os.kill(launched.pid, signal.SIGKILL)
    assert host.event(plan, Ended).status is None


def test_container_that_ended_without_a_launcher_is_reported_as_ended(host) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    os.kill(host.launcher_pid(), signal.SIGKILL)
    os.kill(launched.pid, signal.SIGKILL)
    wait_gone(launched.pid)
    host.until(lambda event: isinstance(event, LauncherLost))
    assert host.event(plan, Ended).status is None
    host.destroy(plan)


def test_exit_status_survives_the_launcher(host) -> None:
    plan = host.plan()
    host.launch(plan)
    with pytest.raises((ConnectionResetError, ValueError)):
        host.ask(plan, exit=9)
    assert host.event(plan, Ended).status == 9
    os.kill(host.launcher_pid(), signal.SIGKILL)
    host.until(lambda event: isinstance(event, LauncherLost))
    assert host.event(plan, Ended).status == 9


def test_cgroups_and_directories_of_an_interrupted_creation_are_removed(host) -> None:
    plan = host.plan()
    host.launch(plan)
    host.destroy(plan)
    tree = CgroupTree.of_host(host.cgroup_root, owner=str(host.state))
    tree.prepare()
    tree.make("t-half.0_1", limits_of(plan.demand))
    make_directory(str(host.state / "c" / "t-half.1_1"), ContainerRef(container="t-half.1", incarnation=1))
    os.kill(host.launcher_pid(), signal.SIGKILL)
    host.until(lambda event: isinstance(event, LauncherLost))
    half = host.plan()
    host.runtime.destroy("t-half.1", 1)
    host.until(lambda event: isinstance(event, Destroyed) and event.container == "t-half.1")
    host.launch(half)
    assert tree.container_keys() == [half.key]


def test_failed_launch_gives_the_reason_and_leaves_nothing(host) -> None:
    plan = host.plan(demand={"workspace": VolumeDemand(path="/home/galaxy", size_bytes=1 << 50)})
    host.request(plan)
    failed = host.event(plan, LaunchFailed)
    assert plan.key in failed.reason.message
    host.destroy(plan)
    assert CgroupTree.of_host(host.cgroup_root).container_keys() == []


def test_launch_that_cannot_be_recorded_fails_and_the_launcher_keeps_running(host) -> None:
    launcher = host.launcher_pid()
    plan = host.plan(0)
    # A directory in place of the draft: writing the record fails, as on a full disk.
    directory = host.state / "c" / plan.key
    make_directory(str(directory), ContainerRef(container=plan.container, incarnation=plan.incarnation))
    (directory / "init.json.new").mkdir()
    host.request(plan)
    assert "init.json" in host.event(plan, LaunchFailed).reason.message
    host.destroy(plan)
    host.launch(host.plan(1))
    assert host.launcher_pid() == launcher


def test_many_containers_are_created_and_destroyed_at_once(host) -> None:
    plans = [host.plan(index) for index in range(12)]
    for plan in plans:
        host.request(plan)
    pids = {host.event(plan, Launched).pid for plan in plans}
    assert len(pids) == 12
    for plan in plans:
        host.runtime.destroy(plan.container, 1)
    for plan in plans:
        host.event(plan, Destroyed)
    assert host.runtime.running() == []


def test_destroying_during_creation_leaves_nothing(host) -> None:
    plan = host.plan()
    host.request(plan)
    host.runtime.destroy(plan.container, 1)
    host.event(plan, Destroyed)
    assert CgroupTree.of_host(host.cgroup_root).container_keys() == []


def test_launcher_with_containers_refuses_to_stop(host) -> None:
    host.launch(host.plan())
    with pytest.raises(Conflict, match="1 containers are left"):
        host.runtime.stop_launcher()
    assert processes.start_ticks(host.launcher_pid())


def test_connection_of_another_user_is_closed(host) -> None:
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(10)\n"
        "try:\n s.connect(sys.argv[1]); print(len(s.recv(9999)))\nexcept PermissionError: print('denied')"
    )
    os.chmod(host.state, 0o755)
    command = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]
    for mode, answer in ((0o600, "denied"), (0o666, "0")):
        os.chmod(host.state / "launcher.sock", mode)
        done = subprocess.run(
            [*command, str(host.state / "launcher.sock")], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == answer, done
    host.launch(host.plan())


def test_launcher_that_cannot_be_replaced_is_tried_again_with_pauses(host) -> None:
    plan = host.plan()
    host.launch(plan)
    lock = os.open(host.state / "launcher.lock", os.O_RDWR | os.O_CLOEXEC)
    os.kill(host.launcher_pid(), signal.SIGKILL)
    fcntl.flock(lock, fcntl.LOCK_EX)  # A launcher that is started now ends at once.
    lost = [event for event in host.runtime.events() if isinstance(event, LauncherLost)]
    tries: list[float] = []

    def tried_again() -> bool:
        lost.extend(event for event in host.runtime.events() if isinstance(event, LauncherLost))
        tries.append(host.runtime.wake_s() or 0.0)
        return len(set(tries) - {0.0}) >= 3

    try:
        until("it was tried three times", tried_again, every_s=0.02)
    finally:
        os.close(lock)
    host.destroy(plan)
    lost += [event for event in host.seen if isinstance(event, LauncherLost)]
    assert len(lost) == 1
    pauses = sorted(set(tries) - {0.0})
    assert pauses[2] - pauses[1] > pauses[1] - pauses[0] > 0.1


def test_what_galaxy_did_not_make_survives_every_start_and_removal(host) -> None:
    """Directories, cgroups with processes and mounts with the names of containers are left alone."""
    plan = host.plan()
    host.launch(plan)
    tops = [path for path in Path("/sys/fs/cgroup").glob(f"*/{host.cgroup_root}") if path.is_dir()]
    tops = tops or [Path("/sys/fs/cgroup") / host.cgroup_root]
    names = ("second_agent", "h_2", "notes_2024", "_1", "a_", host.plan(5).key)
    foreign = [top / name for top in tops for name in names] + [top / "galaxy" / "web.0_1" for top in tops]
    for path in foreign:
        path.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "600"])
    (tops[0] / "h_2" / "cgroup.procs").write_text(str(other.pid))
    kept = [
        host.state / place / name for place in ("c", "t", "logs") for name in ("backup_2024", "notes", "7")
    ]
    for path in kept:
        path.mkdir()
        (path / "mine").write_text("x")
    (host.state / "c" / "a-file_1").write_text("x")
    shutil.copytree(
        host.state / "c" / plan.key, host.state / "c" / "copy_3", ignore=shutil.ignore_patterns("sock")
    )
    try:
        os.kill(host.launcher_pid(), signal.SIGKILL)
        host.until(lambda event: isinstance(event, LauncherLost))
        refused = host.plan(5)
        host.request(refused)
        assert "Galaxy did not make it" in host.event(refused, LaunchFailed).reason.message
        for container, incarnation in (
            ("h", 2),
            ("notes", 2024),
            ("backup", 2024),
            ("copy", 3),
            ("second", 0),
        ):
            host.runtime.destroy(container, incarnation)
            host.until(lambda event, it=container: isinstance(event, Destroyed) and event.container == it)
        assert host.sh(plan, "echo alive")["out"] == "alive\n"
        host.clear()
        host.stop()
        assert other.poll() is None
        assert all(path.is_dir() for path in foreign)
        assert all((path / "mine").read_text() == "x" for path in kept)
        assert (host.state / "c" / "a-file_1").exists() and (
            host.state / "c" / "copy_3" / "plan.json"
        ).exists()
    finally:
        other.kill()
        other.wait()
        for path in (*foreign, *(top / "galaxy" for top in tops), *tops):
            until("it is empty", lambda path=path: _removed(path))


def test_garbage_on_another_mount_is_not_deleted(host) -> None:
    elsewhere = host.state / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("x")
    mounted = host.state / "garbage" / "web.0_1.0123abcd" / "volume"
    mounted.mkdir(parents=True)
    inside = ["nsenter", "--mount", "--target", str(host.launcher_pid())]
    subprocess.run([*inside, "mount", "--bind", str(elsewhere), str(mounted)], check=True)
    try:
        plan = host.plan()
        host.launch(plan)
        host.destroy(plan)
        until("the container's directory is deleted", lambda: len(os.listdir(host.state / "garbage")) == 1)
        assert (elsewhere / "mine").read_text() == "x"
    finally:
        subprocess.run([*inside, "umount", "-l", str(mounted)], check=True)
    until("the rest is deleted", lambda: not os.listdir(host.state / "garbage"))


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()
