"""The kernel enforces the limits of real containers, and OOM kills are counted."""

from __future__ import annotations

import pytest

from galaxy.container.runtime import LaunchFailed
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import TaskDemand, VolumeDemand
from galaxy.units import MIB

pytestmark = pytest.mark.root


@pytest.fixture
def host(launcher):
    yield launcher
    launcher.clear()


FILL = """
import os
written = 0
fd = os.open('{path}/fill', os.O_CREAT | os.O_WRONLY)
try:
    while True:
        written += os.write(fd, bytes(65536))
except OSError as error:
    print(error.errno, written)
"""


def test_program_over_its_memory_limit_is_killed_and_counted_while_pid_1_keeps_running(host) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    ended = host.python(plan, "x = bytearray(200 << 20); print(len(x))")
    assert ended["status"] == -9
    assert "oom_kill 1" in host.ask(plan, oom="web")["oom"]
    assert host.runtime.meter.measure(plan.container, 1).oom_kills == 1
    assert host.runtime.running()[0].pid == launched.pid


def test_program_within_its_memory_limit_is_not_killed(host) -> None:
    plan = host.plan()
    host.launch(plan)
    assert host.python(plan, "x = bytearray(24 << 20); print(len(x))")["out"].strip() == str(24 << 20)
    assert host.runtime.meter.measure(plan.container, 1).oom_kills == 0


def test_fork_bomb_is_stopped_by_the_pids_limit(host) -> None:
    plan = host.plan()
    host.launch(plan)
    bomb = """
import os, time, signal
n = 0
pids = []
try:
    while n < 1000:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
        n += 1
except OSError as error:
    print(error.errno, n + 1)
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
    assert host.python(plan, bomb)["out"].split() == ["11", "24"]


def test_busy_loop_stays_within_five_percent_of_its_quota(host) -> None:
    plan = host.plan(task={"cpu_milli": 200})
    host.launch(plan)
    busy = """
import time
time.sleep(0.2)  # Until a new period: starting up has used a part of this one.
begin, used = time.monotonic(), time.process_time()
while time.monotonic() < begin + 4 or (time.process_time() < used + 0.6 and time.monotonic() < begin + 20):
    pass  # Runs for longer on a busy machine.
print((time.process_time() - used) / (time.monotonic() - begin))
"""
    share = float(host.python(plan, busy)["out"])
    assert 0.03 < share <= 0.2 * 1.05


def test_task_with_excess_cpu_uses_more_than_its_share_of_an_idle_host(host) -> None:
    plan = host.plan(task={"cpu_milli": 100, "cpu_excess": True})
    host.launch(plan)
    busy = """
import time
most, end = 0, time.monotonic() + 20  # A busy machine may grant that much only at times.
while most < 0.21 and time.monotonic() < end:
    begin, used = time.monotonic(), time.process_time()
    while time.monotonic() < begin + 1:
        pass
    most = max(most, (time.process_time() - used) / (time.monotonic() - begin))
print(most)
"""
    assert float(host.python(plan, busy)["out"]) > 0.2


@pytest.mark.parametrize(("medium", "least"), [(Medium.TMPFS, 0.99), (Medium.DISK, 0.94)])
def test_writing_more_than_a_volumes_size_fails_with_enospc(host, medium: Medium, least: float) -> None:
    size = 16 * MIB
    volume = VolumeDemand(path="/data", size_bytes=size, medium=medium)
    plan = host.plan(demand={"volumes": (volume,)})
    host.launch(plan)
    number, written = map(int, host.python(plan, FILL.format(path="/data"))["out"].split())
    assert number == 28
    assert least * size <= written <= size
    if medium is Medium.DISK:
        assert host.runtime.meter.measure(plan.container, 1).disk_bytes == pytest.approx(written, abs=MIB)


def test_programs_start_in_the_workspace_and_own_it(host) -> None:
    plan = host.plan(demand={"workspace": VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB)})
    host.launch(plan)
    assert host.sh(plan, "pwd; touch here && ls")["out"].split() == ["/home/galaxy", "here"]


def test_private_tmp_is_limited_and_writable(host) -> None:
    plan = host.plan(task={"memory_bytes": 128 * MIB})
    host.launch(plan)
    number, written = map(int, host.python(plan, FILL.format(path="/tmp"))["out"].split())
    assert (number, written) == (28, 64 * MIB)


@pytest.mark.parametrize("medium", [Medium.TMPFS, Medium.DISK])
def test_readonly_volume_cannot_be_written(host, medium: Medium) -> None:
    volume = VolumeDemand(path="/data", size_bytes=4 * MIB, medium=medium, readonly=True)
    plan = host.plan(demand={"volumes": (volume,)})
    host.launch(plan)
    assert "Read-only file system" in host.sh(plan, "touch /data/x")["out"]


def test_volume_inside_another_volume_is_mounted(host) -> None:
    volumes = (
        VolumeDemand(path="/home/galaxy/cache/deep", size_bytes=MIB, medium=Medium.TMPFS),
        VolumeDemand(path="/tmp/mine", size_bytes=MIB, medium=Medium.TMPFS),
    )
    plan = host.plan(demand={"volumes": volumes})
    host.launch(plan)
    assert host.sh(plan, "touch /home/galaxy/cache/deep/x /tmp/mine/y && echo done")["out"] == "done\n"


def test_limits_of_one_task_do_not_apply_to_another(host) -> None:
    tasks = (
        TaskDemand(name="web", cpu_milli=500, memory_bytes=32 * MIB, pids_max=16),
        TaskDemand(name="side", cpu_milli=500, memory_bytes=96 * MIB, pids_max=16),
    )
    plan = host.plan(demand={"tasks": tasks})
    host.launch(plan)
    big = ["/usr/bin/python3", "-I", "-S", "-c", "print(len(bytearray(64 << 20)))"]
    assert host.ask(plan, task="side", argv=big)["status"] == 0
    assert host.ask(plan, task="web", argv=big)["status"] == -9


def test_launch_with_a_volume_below_a_read_only_directory_fails_and_names_the_path(host) -> None:
    plan = host.plan(demand={"volumes": (VolumeDemand(path="/usr/local/data", size_bytes=MIB),)})
    host.request(plan)
    failed = host.event(plan, LaunchFailed)
    assert "/usr/local/data" in failed.reason.message
