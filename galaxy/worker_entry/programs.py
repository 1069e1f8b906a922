"""Tasks' programs: started, signalled, and waited for until no process of theirs is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from galaxy.model.messages.pod import Exit
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig
from galaxy.statemachine.backoff import Backoff
from galaxy.worker_entry.environment import task_id
from galaxy.worker_entry.event_loop import Loop, Timer
from galaxy.worker_entry.logic.events import Event, ProgramEnded, ProgramStarted, TaskEmptied
from galaxy.worker_entry.prefork import PreforkedProgram
from galaxy.worker_entry.processes import members, oom_kills, set_pids_max, signal_all
from galaxy.worker_entry.spawn import CANNOT_EXEC, Spawner, status_of
from galaxy.worker_entry.task_logs import TaskLogs

_LOOK_AGAIN_S: Final = (0.02, 1.0)
"""First and longest pause between looks whether a task's processes are gone."""


class Programs:
    """The program of each task: that of now, or the last one.

    ``spared(task, keep_execs)`` are processes that are not the program's: of its deployment, and with
    ``keep_execs`` of commands that people run beside it.
    """

    def __init__(
        self,
        loop: Loop,
        config: WorkerConfig,
        spawner: Spawner,
        *,
        logs: Callable[[str], TaskLogs],
        spared: Callable[[str, bool], set[int]],
        watch: Callable[[int, Callable[[int], None]], None],
        failed: Callable[[str, str], None],
        done: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._container = config.container
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._spawner = spawner
        self._prefork = PreforkedProgram(config) if config.prefork_pid else None
        self._logs = logs
        self._spared = spared
        self._watch = watch
        self._failed = failed
        self._done = done
        self._programs: dict[str, _Program] = {}

    def start(self, name: str, run: int, command: str, env: dict[str, str]) -> None:
        """Start a task's program; its start and its end are told as events."""
        program = self._program(name)
        cgroup = self._cgroups[name]
        now_s = time.time()
        logs = self._logs(name)
        logs.begin_run(run, now_s)
        self._done(ProgramStarted(task=name, run=run, at_s=now_s))
        program.oom_kills = oom_kills(cgroup)
        try:
            program.pid = self._become(["/bin/sh", "-c", command], env, cgroup, logs)
        except OSError as error:
            self._failed("start-failed", f"{name}: no process could be made: {error.strerror}")
            self._done(ProgramEnded(task=name, run=run, exit=Exit(at_s=now_s, code=CANNOT_EXEC)))
            return
        finally:
            logs.write_index()
        program.alive = True
        self._watch(program.pid, lambda status: self._ended(name, run, status))

    def signal(self, name: str, number: int) -> None:
        """Signal all processes of a task but those of commands that people run beside it."""
        signal_all(self._members(name, keep_execs=True), number)

    def leave(self, name: str, run: int, *, kill: bool, keep_execs: bool) -> None:
        """Wait until no process of a task is left, and kill them if ``kill``; then it is ``TaskEmptied``."""
        if name not in self._cgroups:  # A task that the container has no room for never ran.
            self._done(TaskEmptied(task=name, run=run))
            return
        program = self._program(name)
        leaving = program.leaving
        if leaving is None or leaving.run != run:
            program.forget_leaving()
            leaving = program.leaving = _Leaving(run)
        leaving.kill = leaving.kill or kill
        leaving.keep_execs = keep_execs
        leaving.backoff.reset()
        self._look(name)

    def look_at_all(self) -> None:
        """Look again whether tasks that are waited for are empty: some child has ended."""
        for name in list(self._programs):
            self._look(name)

    def _program(self, name: str) -> _Program:
        return self._programs.setdefault(name, _Program())

    def _become(self, argv: list[str], env: dict[str, str], cgroup: TaskCgroup, logs: TaskLogs) -> int:
        """Start a program: by the child that waits for the first one, else by a fork."""
        prefork, self._prefork = self._prefork, None
        if prefork is not None:
            pid = prefork.start(argv, env, cgroup, (self._spawner.devnull, logs.stdout, logs.stderr))
            if pid:
                return pid
        return self._spawner.program(argv, env, cgroup, stdout=logs.stdout, stderr=logs.stderr)

    def _ended(self, name: str, run: int, status: int) -> None:
        program = self._programs[name]
        program.alive = False
        self._logs(name).drain()
        code, number, core = status_of(status)
        # A shell around the program turns its SIGKILL into 137; the kernel's count is the proof.
        killed = number == signal.SIGKILL or code == 128 + signal.SIGKILL
        oom = killed and oom_kills(self._cgroups[name]) > program.oom_kills
        exit_ = Exit(at_s=time.time(), code=code, signal=number, core=core, oom=oom)
        self._done(ProgramEnded(task=name, run=run, exit=exit_))

    def _members(self, name: str, *, keep_execs: bool) -> set[int]:
        program = self._program(name)
        spared = self._spared(name, keep_execs)
        return members(self._cgroups[name], program.pid, task_id(self._container, name), spared)

    def _look(self, name: str) -> None:
        program = self._programs[name]
        leaving = program.leaving
        if leaving is None:
            return
        cgroup = self._cgroups[name]
        pids = self._members(name, keep_execs=leaving.keep_execs)
        if not pids and not program.alive:
            program.forget_leaving()
            if leaving.kill:
                set_pids_max(cgroup, cgroup.pids_max)
            self._done(TaskEmptied(task=name, run=leaving.run))
            return
        if leaving.kill:
            set_pids_max(cgroup, 0)
            signal_all(pids, signal.SIGKILL)
        # Deaths wake us; the timer is for what is born or moved between look and signal.
        if leaving.timer is not None:
            leaving.timer.cancel()
        leaving.timer = self._loop.after(leaving.backoff.next_s(), lambda: self._look(name))


class _Program:
    """A task's program of now, or the last one: its pid stays known for finding its processes."""

    def __init__(self) -> None:
        self.pid = 0
        self.alive = False
        self.oom_kills = 0
        self.leaving: _Leaving | None = None

    def forget_leaving(self) -> None:
        if self.leaving is not None and self.leaving.timer is not None:
            self.leaving.timer.cancel()
        self.leaving = None


class _Leaving:
    """Processes of a task are waited for, and killed if ``kill``."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.kill = False
        self.keep_execs = True
        self.backoff = Backoff(*_LOOK_AGAIN_S)
        self.timer: Timer | None = None
