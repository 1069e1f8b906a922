"""Facts about processes, and killing of processes that are in no cgroup."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from galaxy.container.kernel import processes
from galaxy.container.launcher import process_group

PID_ABOVE_THE_MAXIMUM = 2**22 + 1


def test_running_process_has_a_start_time_and_a_pid_without_a_process_has_none() -> None:
    assert processes.start_ticks(os.getpid()) > 0
    assert processes.start_ticks(PID_ABOVE_THE_MAXIMUM) == 0


def test_zombie_counts_as_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert processes.start_ticks(pid) == 0
    finally:
        os.waitpid(pid, 0)


def test_all_descendants_are_killed_and_the_process_itself_is_not() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sh -c 'sleep 60 & wait' & echo up; read x"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as head:  # fmt: skip
        try:
            assert head.stdout is not None and head.stdout.readline() == b"up\n"
            assert processes.descendants(head.pid)
            os.kill(head.pid, signal.SIGSTOP)
            process_group.kill_descendants(head.pid)
            assert processes.descendants(head.pid) == []
            assert processes.start_ticks(head.pid) > 0
        finally:
            head.kill()


def test_strays_are_found_by_their_workspace(tmp_path: Path) -> None:
    environment = {"GALAXY_WORKSPACE": f"{tmp_path}/c/x_1/v0"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as stray:
        try:
            assert not process_group.kill_strays(f"{tmp_path}/c/x_2")
            assert stray.poll() is None
            assert process_group.kill_strays(f"{tmp_path}/c/x_1")
            assert stray.wait(timeout=10) == -signal.SIGKILL
        finally:
            stray.kill()
