"""OOM kills are reported when they are counted, and a program's own end is OOM only when it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from galaxy.model.messages.worker import TaskCgroup
from galaxy.worker_entry import oom_watch
from galaxy.worker_entry.event_loop import EventLoop
from galaxy.worker_entry.oom_watch import OomWatch, is_dying, process_name


class Kernel:
    """The files of one task's cgroup, and what was reported of it."""

    def __init__(self, folder: Path) -> None:
        self.procs, self.oom = folder / "procs", folder / "oom"
        self.procs.write_text("")
        self.count(0)
        self.fds = [os.open(self.procs, os.O_RDWR), os.open(self.oom, os.O_RDONLY)]
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.reported: list[tuple[str, int, str]] = []
        self.faults: list[Exception] = []
        self.loop = EventLoop(self.faults.append)
        cgroup = TaskCgroup(
            name="main", procs_fds=(self.fds[0],), oom_fd=self.fds[1], oom_event_fd=self.event
        )
        self.watch = OomWatch(self.loop, [cgroup], lambda *report: self.reported.append(report))

    def count(self, kills: int) -> None:
        self.oom.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")

    def members(self, *pids: int) -> None:
        self.procs.write_text("".join(f"{pid}\n" for pid in pids))

    def run(self, for_s: float) -> None:
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s:
            self.loop.after(0.01, lambda: None)
            self.loop.run_once()
        assert not self.faults


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(oom_watch, "REPORT_S", 0.1)
    return Kernel(tmp_path)


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and was not reaped."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    while not is_dying(process.pid):
        time.sleep(0.01)
    yield process.pid
    process.wait()


def test_kill_of_a_child_is_reported_and_not_taken_for_the_programs_end(kernel: Kernel, zombie: int) -> None:
    kernel.watch.begin("main", os.getpid())
    kernel.members(os.getpid(), zombie)
    os.eventfd_write(kernel.event, 1)
    kernel.run(0.02)
    kernel.count(1)
    kernel.run(0.3)
    assert kernel.reported == [("main", 1, f"{process_name(zombie)} ({zombie})")]
    assert not kernel.watch.end("main", None, signal.SIGKILL)  # Killed by hand, later.
    assert not kernel.watch.end("main", 7, None)
    assert len(kernel.reported) == 1


def test_own_kill_is_oom_though_it_was_counted_before_the_end(kernel: Kernel, zombie: int) -> None:
    kernel.watch.begin("main", zombie)
    kernel.members(zombie)
    kernel.count(1)
    kernel.watch.check("main")
    assert kernel.watch.end("main", None, signal.SIGKILL)


def test_own_kill_is_oom_when_it_is_counted_with_the_end(kernel: Kernel) -> None:
    kernel.watch.begin("main", 2**30)
    kernel.count(1)
    assert kernel.watch.end("main", None, signal.SIGKILL)
    assert kernel.reported == [("main", 1, "its program")]


def test_shell_that_ends_with_137_at_once_was_ended_by_the_kill(kernel: Kernel) -> None:
    kernel.watch.begin("main", os.getpid())
    kernel.count(1)
    kernel.watch.check("main")
    assert kernel.watch.end("main", 137, None)
    kernel.watch.begin("main", os.getpid())
    assert not kernel.watch.end("main", 137, None)


def test_child_that_is_killed_again_and_again_is_counted_in_few_reports(kernel: Kernel) -> None:
    kernel.watch.begin("main", os.getpid())
    for number in range(1, 51):
        kernel.count(number)
        kernel.watch.check("main")
        kernel.run(0.02)
    assert len(kernel.reported) < 6
    assert not kernel.watch.end("main", 0, None)
    assert sum(count for _, count, _ in kernel.reported) == 50


def test_kills_of_an_earlier_run_do_not_count_for_the_next_one(kernel: Kernel) -> None:
    kernel.watch.begin("main", 2**30)
    kernel.count(1)
    kernel.watch.begin("main", 2**30)
    assert not kernel.watch.end("main", None, signal.SIGKILL)
    assert kernel.reported == [("main", 1, "")]
