"""Programs that ignore signals are killed, and programs cannot end other containers."""

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
for n in range(10):  # Each detaches from its parent and session.
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


def test_program_that_ignores_signals_and_its_daemons_are_killed_after_the_stop_timeout(host) -> None:
    container = host.container("stubborn", start=quoted(STUBBORN), stop_timeout=0.5)
    container.await_log("stubborn")
    container.await_pids(11)
    start_s = time.monotonic()
    container.order(run=False)
    container.until_state("stopped")
    assert time.monotonic() - start_s >= 0.5
    container.await_pids(0)
    container.destroy()


def test_daemons_of_an_ended_program_are_killed_before_its_restart(host) -> None:
    start = quoted(STUBBORN.replace("while True:\n    time.sleep(1000)\n", "", 2) + "\nos._exit(3)\n")
    container = host.container("left", start=start, restart=RestartSpec(policy="always", delay=0.05))
    container.until_pod(lambda pod: pod.tasks and pod.tasks[0].restarts >= 3)
    # Those of one run, or of two during a restart; pids.current drops a moment after a process is reaped.
    until("daemons of earlier runs are gone", lambda: container.pids() <= 22)
    container.destroy()


def test_destroying_a_container_kills_all_its_processes(host) -> None:
    container = host.container("stubborn", start=quoted(STUBBORN))
    container.await_log("stubborn")
    container.await_pids(11)
    procs = container.cgroup("pids") / "cgroup.procs"
    pids = [int(line) for line in procs.read_text().split()]
    assert len(pids) == 11
    container.destroy()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not procs.exists()


def test_kill_of_all_processes_reaches_only_those_of_the_container(host) -> None:
    beside = host.container("beside", start=UP)
    container = host.container("killer", start=UP)
    container.await_log("up")  # Before that, the program may still run as root.
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


def test_root_that_ends_its_appworker_ends_only_its_own_container(host) -> None:
    beside = host.container("beside", start=UP)
    container = host.container("suicide", uid=0, start="kill -TERM 1; exec sleep 1000", stop_timeout=0.5)
    beside.await_log("up")
    ended = container.ended()
    assert (ended.status, ended.oom) == (0, False)
    assert beside.alive and beside.pids() == 1
    container.destroy()
    beside.destroy()


def test_killing_pid_1_kills_all_its_container_and_is_reported_with_its_status(host) -> None:
    container = host.container("stubborn", start=quoted(STUBBORN))
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
