"""Start and signal the programs of tasks, and wait until none of their processes is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from galaxy.model.messages.pod import Exit
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig
from galaxy.statemachine.backoff import Backoff
from galaxy.worker_entry.environment import limits_of, task_id
from galaxy.worker_entry.event_loop import EventLoop, Timer
from galaxy.worker_entry.logic.effects import StartProgram
from galaxy.worker_entry.logic.events import Event, ProgramEnded, ProgramStarted, TaskEmptied
from galaxy.worker_entry.oom_watch import OomWatch
from galaxy.worker_entry.prefork import PreforkedProgram
from galaxy.worker_entry.processes import members, pids_max, set_pids_max, signal_all
from galaxy.worker_entry.spawn import Limits, Spawner, status_of
from galaxy.worker_entry.task_logs import TaskLogs

CHECK_S: Final = 0.02
CHECK_S_MAX: Final = 1.0
"""First and longest pause between checks whether a task's processes are gone."""


class Programs:
    """The current or last program of each task.

    ``excluded(task, keep_execs)`` returns the roots of processes in the task's cgroup that do not
    belong to its program: those of its deployment and, with ``keep_execs``, of exec commands.
    ``has_commands(task)`` returns whether a command of ``Commands`` may still run in the task.
    """

    def __init__(
        self,
        loop: EventLoop,
        config: WorkerConfig,
        spawner: Spawner,
        *,
        oom: OomWatch,
        logs: Callable[[str], TaskLogs],
        excluded: Callable[[str, bool], set[int]],
        has_commands: Callable[[str], bool],
        on_exit: Callable[[int, Callable[[int], None]], None],
        log: Callable[[str, str], None],
        emit: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._container = config.container
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._spawner = spawner
        self._prefork = PreforkedProgram(config) if config.prefork_pid else None
        self._oom = oom
        self._logs = logs
        self._excluded = excluded
        self._has_commands = has_commands
        self._on_exit = on_exit
        self._log = log
        self._emit = emit
        self._programs: dict[str, _Program] = {}
        self._pids_max: dict[str, int] = {}
        """By task, the limit to restore after a kill, where it is not that of the launch."""

    def start(self, effect: StartProgram, env: dict[str, str]) -> None:
        """Start a task's program; emits ``ProgramStarted`` now and ``ProgramEnded`` when it ends.

        Raises:
            OSError: no process could be created; no ``ProgramEnded`` follows.
        """
        name, run, command = effect.task, effect.run, effect.spec.start
        program = self._program(name)
        cgroup = self._cgroups[name]
        now_s = time.time()
        logs = self._logs(name)
        logs.begin_run(run, now_s, revision=effect.revision, restarts=effect.restarts)
        self._emit(ProgramStarted(task=name, run=run, at_s=now_s))
        try:
            program.pid = self._start(["/bin/sh", "-c", command], env, cgroup, limits_of(effect.spec), logs)
        finally:
            logs.write_index()
        self._oom.begin(name, program.pid)
        program.alive = True
        self._on_exit(program.pid, lambda status: self._on_ended(name, run, status))

    def signal(self, name: str, number: int) -> None:
        """Signal all processes of a task except those of exec commands."""
        signal_all(self._members(name, keep_execs=True), number)

    def await_empty(self, name: str, run: int, *, kill: bool, keep_execs: bool) -> None:
        """Emit ``TaskEmptied`` once no process of a task is left; with ``kill`` kill them until then."""
        if name not in self._cgroups:  # The container was created without this task, so it never ran.
            self._emit(TaskEmptied(task=name, run=run))
            return
        program = self._program(name)
        emptying = program.emptying
        if emptying is None or emptying.run != run:
            program.stop_emptying()
            emptying = program.emptying = _Emptying(run)
        emptying.kill = emptying.kill or kill
        emptying.keep_execs = keep_execs
        emptying.backoff.reset()
        self._check(name)

    def limit_pids(self, name: str, limit: int) -> None:
        """Limit the processes of a task to ``limit`` from now on, or from when they are all killed."""
        self._pids_max[name] = limit
        emptying = self._program(name).emptying
        if name in self._cgroups and (emptying is None or not emptying.kill):
            set_pids_max(self._cgroups[name], limit)

    def check_all(self) -> None:
        """Check for every ``await_empty`` whether the task is empty; called when a child has ended."""
        for name in list(self._programs):
            self._check(name)

    def _program(self, name: str) -> _Program:
        return self._programs.setdefault(name, _Program())

    def _start(
        self, argv: list[str], env: dict[str, str], cgroup: TaskCgroup, limits: Limits, logs: TaskLogs
    ) -> int:
        """Start a program: the first one in the preforked child, every other one by a fork."""
        prefork, self._prefork = self._prefork, None
        if prefork is not None:
            streams = self._spawner.devnull, logs.stdout, logs.stderr
            pid = prefork.start(argv, env, cgroup, limits, streams)
            if pid:
                return pid
        return self._spawner.program(argv, env, cgroup, stdout=logs.stdout, stderr=logs.stderr, limits=limits)

    def _on_ended(self, name: str, run: int, status: int) -> None:
        program = self._programs[name]
        program.alive = False
        self._logs(name).drain()
        code, number, core = status_of(status)
        oom = self._oom.end(name, code, number)
        exit_ = Exit(at_s=time.time(), code=code, signal=number, core=core, oom=oom)
        self._emit(ProgramEnded(task=name, run=run, exit=exit_))

    def _members(self, name: str, *, keep_execs: bool) -> set[int]:
        program = self._program(name)
        excluded = self._excluded(name, keep_execs)
        return members(self._cgroups[name], program.pid, task_id(self._container, name), excluded)

    def _check(self, name: str) -> None:
        program = self._programs[name]
        emptying = program.emptying
        if emptying is None:
            return
        # The next check is set first, so that one that fails is repeated. A child's end triggers a check;
        # the timer covers processes that were forked or moved between the check and the signal.
        if emptying.timer is not None:
            emptying.timer.cancel()
        emptying.timer = self._loop.after(emptying.backoff.next_s(), lambda: self._check(name))
        cgroup = self._cgroups[name]
        try:
            pids = self._members(name, keep_execs=emptying.keep_execs)
        except OSError as error:
            self._log("check-failed", f"{name}: cannot list its processes: {error.strerror}")
            return
        if not pids and not program.alive and not self._has_commands(name):
            program.stop_emptying()
            if emptying.kill:
                set_pids_max(cgroup, self._pids_max.get(name, cgroup.pids_max))
            self._emit(TaskEmptied(task=name, run=emptying.run))
            return
        if emptying.kill:
            if limit := pids_max(cgroup):  # The agent changes it when the container is resized.
                self._pids_max[name] = limit
            set_pids_max(cgroup, 0)
            signal_all(pids, signal.SIGKILL)


class _Program:
    """A task's current or last program. The pid is kept after its end, to find its processes."""

    def __init__(self) -> None:
        self.pid = 0
        self.alive = False
        self.emptying: _Emptying | None = None

    def stop_emptying(self) -> None:
        if self.emptying is not None and self.emptying.timer is not None:
            self.emptying.timer.cancel()
        self.emptying = None


class _Emptying:
    """The wait for the end of a task's processes, which are killed meanwhile if ``kill``."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.kill = False
        self.keep_execs = True
        self.backoff = Backoff(CHECK_S, CHECK_S_MAX)
        self.timer: Timer | None = None
