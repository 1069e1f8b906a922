"""Programs that will not die, and programs that would have others die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from galaxy.model.jobspec.spec import RestartSpec
from tests.support.hostile import quoted
from tests.support.waiting import until

STUBBORN = """
import os, signal, time
for number in set(range(1, 65)) - {signal.SIGCHLD}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for n in range(10):  # Each leaves its parent, session, environment and name behind.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            os.chdir("/")
            while True:
                time.sleep(1000)
        os._exit(0)
    os.wait()
print("stubborn", flush=True)
while True:
    time.sleep(1000)
"""
UP = "echo up; exec sleep 1000000"


def test_program_that_ignores_every_signal_and_its_daemons_end_after_the_stop_timeout(world) -> None:
    container = world.container("stubborn", start=quoted(STUBBORN), stop_timeout=0.5)
    container.await_log("stubborn")
    container.await_pids(11)
    start_s = time.monotonic()
    container.order(run=False)
    container.until_state("stopped")
    assert time.monotonic() - start_s >= 0.5
    container.await_pids(0)
    container.destroy()


def test_daemons_of_a_program_that_is_gone_do_not_outlive_its_restart(world) -> None:
    start = quoted(STUBBORN.replace("while True:\n    time.sleep(1000)\n", "", 2) + "\nos._exit(3)\n")
    container = world.container("left", start=start, restart=RestartSpec(policy="always", delay=0.05))
    container.until_pod(lambda pod: pod.tasks and pod.tasks[0].restarts >= 3)
    # Those of one run, or of one that goes and one that comes; who was reaped is counted a little longer.
    until("daemons are gone", lambda: container.pids() <= 22)
    container.destroy()


def test_destroying_a_container_leaves_none_of_its_processes(world) -> None:
    container = world.container("stubborn", start=quoted(STUBBORN))
    container.await_log("stubborn")
    container.await_pids(11)
    procs = container.cgroup("pids") / "cgroup.procs"
    pids = [int(line) for line in procs.read_text().split()]
    assert len(pids) == 11
    container.destroy()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not procs.exists()


def test_kill_of_everybody_reaches_the_containers_own_programs_only(world) -> None:
    beside = world.container("beside", start=UP)
    container = world.container("killer", start=UP)
    container.await_log("up")  # Before, it may still be root.
    beside.await_log("up")
    status, _ = container.sh("trap '' TERM; kill -TERM -1; kill -KILL -1; echo over")
    assert status in (0, 137)
    pod = container.until_pod(lambda pod: pod.tasks and pod.tasks[0].last_exit is not None)
    assert pod.tasks[0].last_exit.signal in (signal.SIGTERM, signal.SIGKILL)
    assert container.alive and beside.alive
    assert beside.pids() == 1
    assert beside.sh("echo here")[1] == "here\n"
    container.destroy()
    beside.destroy()


def test_root_that_ends_its_own_appworker_ends_its_own_container_only(world) -> None:
    beside = world.container("beside", start=UP)
    container = world.container("suicide", uid=0, start="kill -TERM 1; exec sleep 1000", stop_timeout=0.5)
    beside.await_log("up")
    ended = container.ended()
    assert (ended.status, ended.oom) == (0, False)
    assert beside.alive and beside.pids() == 1
    container.destroy()
    beside.destroy()


def test_death_of_pid_1_takes_all_of_its_container_and_is_told_with_its_status(world) -> None:
    container = world.container("stubborn", start=quoted(STUBBORN))
    container.await_log("stubborn")
    pids = [int(line) for line in (container.cgroup("pids") / "cgroup.procs").read_text().split()]
    os.kill(container.pid, signal.SIGKILL)
    ended = container.ended()
    assert (
        ended.status == -signal.SIGKILL
        or ended.status == 128 + signal.SIGKILL
        or ended.status == signal.SIGKILL
    )
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    container.destroy()
