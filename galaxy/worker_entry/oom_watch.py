"""OOM kills in the cgroups of tasks: noticed when they happen, with the process where it is known.

The kernel counts kills per cgroup and names no process. So the processes that are dying of SIGKILL when
the count has grown are taken for the victims. On cgroup v2 the file of the count wakes a poll; on v1 an
eventfd does (kernel: cgroup-v1/memory.rst), a moment before the kill is counted. Without either, kills
are noticed when AppWorker reaps a process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

from galaxy.model.messages.worker import TaskCgroup
from galaxy.worker_entry.event_loop import READ, EventLoop
from galaxy.worker_entry.processes import oom_kills, pids_of

SHELL_S: Final = 2.0
"""How long after a kill a shell may end with 137 because of it."""
REPORT_S: Final = 1.0
REPORT_S_MAX: Final = 60.0
"""Least time between two reports of one task, at first and when its processes are killed again and again."""
_CHECKS_S: Final = (0.002, 0.01, 0.05, 0.2, 0.5)
"""When to look for the kill that an eventfd has announced."""
_PAUSE_S: Final = 0.1
"""Pause between two notifications: reclaim near the limit causes many."""
_PROCESSES_MAX: Final = 256
_SIGKILL_BIT: Final = 1 << (signal.SIGKILL - 1)

OnKills = Callable[[str, int, str], None]
"""Called with the task, the number of kills, and the names of the processes or an empty text."""


class OomWatch:
    """Watches the cgroups of all tasks."""

    def __init__(self, loop: EventLoop, cgroups: Iterable[TaskCgroup], on_kills: OnKills) -> None:
        self._loop = loop
        self._on_kills = on_kills
        self._tasks = {cgroup.name: _Task(cgroup) for cgroup in cgroups if cgroup.oom_fd >= 0}
        for task in self._tasks.values():
            self._watch(task)

    def begin(self, name: str, program: int) -> None:
        """Watch ``program``, which has just been started."""
        if name in self._tasks:
            self.check(name)
            self._tasks[name].begin(program)

    def check(self, name: str) -> None:
        """Report the kills since the last check, after a pause that grows while there are more."""
        task = self._tasks.get(name)
        if task is None:
            return
        if new := task.count_new():
            task.unreported += new
            task.names = task.victims() or task.names
        wait_s = task.reported_s + task.pause_s - time.monotonic()
        if task.unreported and wait_s <= 0:
            self._report(task)
        elif task.unreported and not task.is_report_due:
            task.is_report_due = True
            self._loop.after(wait_s, lambda: self._report(task))

    def check_all(self) -> None:
        """Report the kills of every task; called when AppWorker has reaped a process."""
        for name in self._tasks:
            self.check(name)

    def end(self, name: str, code: int | None, number: int | None) -> bool:
        """Report the kills until a task's program ended; return whether it was one of them.

        ``code`` and ``number`` are its exit code or the signal that ended it. A shell turns the SIGKILL
        of its last command into exit code 137.
        """
        task = self._tasks.get(name)
        if task is None:
            return False
        if not (number == signal.SIGKILL or code == 128 + signal.SIGKILL):
            self.check(name)
            self._report(task)
            return False
        was_dying = task.program_was_dying
        new = task.count_new()
        if number == signal.SIGKILL:
            killed = was_dying or new > 0
        else:
            killed = new > 0 or time.monotonic() - task.killed_s < SHELL_S
        task.unreported += new
        if killed:
            task.names = "its program"
        self._report(task)
        return killed

    def _report(self, task: _Task) -> None:
        count, names = task.unreported, task.names
        task.unreported, task.names, task.is_report_due = 0, "", False
        if count:
            now_s = time.monotonic()
            is_repeated = now_s - task.reported_s < 4 * task.pause_s
            task.pause_s = min(2 * task.pause_s, REPORT_S_MAX) if is_repeated else REPORT_S
            task.reported_s = now_s
            self._on_kills(task.cgroup.name, count, names)

    def _watch(self, task: _Task) -> None:
        notified = task.cgroup.oom_event_fd
        fd, events = (notified, READ) if notified >= 0 else (task.cgroup.oom_fd, select.EPOLLPRI)
        with contextlib.suppress(OSError):  # Without notifications, reaping notices kills.
            self._loop.add(fd, events, lambda _: self._on_notified(task, fd))
        self.check(task.cgroup.name)

    def _on_notified(self, task: _Task, fd: int) -> None:
        name = task.cgroup.name
        if fd == task.cgroup.oom_event_fd:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            task.remember_processes()
            for delay_s in _CHECKS_S:
                self._loop.after(delay_s, lambda: self.check(name))
        self.check(name)
        self._loop.remove(fd)
        self._loop.after(_PAUSE_S, lambda: self._watch(task))


class _Task:
    """What is known of the kills in one task's cgroup."""

    def __init__(self, cgroup: TaskCgroup) -> None:
        self.cgroup = cgroup
        self.program_was_dying = False
        """The program was dying when a kill was counted."""
        self.killed_s = float("-inf")
        """When the last kill was counted."""
        self.unreported = 0
        self.names = ""
        self.reported_s = float("-inf")
        self.pause_s = REPORT_S
        self.is_report_due = False
        self._program = 0
        self._counted = oom_kills(cgroup)
        self._names: dict[int, str] = {}
        """Names of the processes before a kill that was announced."""

    def begin(self, program: int) -> None:
        self._program = program
        self.program_was_dying = False
        self.killed_s = float("-inf")
        self._names = {}

    def count_new(self) -> int:
        """Return how many kills were counted since the last call."""
        count = oom_kills(self.cgroup)
        new, self._counted = count - self._counted, count
        if new > 0:
            self.killed_s = time.monotonic()
            self.program_was_dying |= bool(self._program) and is_dying(self._program)
        return max(new, 0)

    def remember_processes(self) -> None:
        self._names = {pid: process_name(pid) for pid in sorted(pids_of(self.cgroup))[:_PROCESSES_MAX]}

    def victims(self) -> str:
        """Return the names and pids of the processes that are dying, or have ended since a notification."""
        pids = pids_of(self.cgroup)
        dying = {pid: process_name(pid) for pid in sorted(pids)[:_PROCESSES_MAX] if is_dying(pid)}
        if not dying:
            dying = {pid: name for pid, name in self._names.items() if pid not in pids or is_dying(pid)}
        self._names = {}
        return ", ".join(f"{name or 'process'} ({pid})" for pid, name in list(dying.items())[:3])


def is_dying(pid: int) -> bool:
    """Return whether a process has a pending SIGKILL, or has ended and was not reaped yet."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    facts = dict(line.split(b":", 1) for line in lines if b":" in line)
    has_ended = facts.get(b"State", b"").strip()[:1] in (b"Z", b"X")
    pending = (int(facts.get(name, b"0"), 16) for name in (b"SigPnd", b"ShdPnd"))
    return has_ended or any(bits & _SIGKILL_BIT for bits in pending)


def process_name(pid: int) -> str:
    """Return the name of a process, empty if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
