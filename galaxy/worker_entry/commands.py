"""Commands of a spec other than its program: to stop it, to reload its data, to check its health."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.worker import WorkerConfig
from galaxy.worker_entry.environment import limits_of
from galaxy.worker_entry.event_loop import EventLoop, Timer
from galaxy.worker_entry.logic.effects import RunProbe, RunReload
from galaxy.worker_entry.logic.events import Event, ProbeAnswered, ReloadEnded
from galaxy.worker_entry.probes import NetworkProbe
from galaxy.worker_entry.spawn import CANNOT_EXEC, Spawner, exit_code
from galaxy.worker_entry.supervision import supervise
from galaxy.worker_entry.task_logs import TaskLogs

RELOAD_S_MAX: Final = 60.0
KILL_S_MAX: Final = 5.0
"""How long a command that is killed may take to end before its outcome is emitted without it."""
TIMED_OUT: Final = 128 + signal.SIGKILL


class Commands:
    """Runs commands in their task's cgroup, each within its timeout, and emits their outcomes."""

    def __init__(
        self,
        loop: EventLoop,
        config: WorkerConfig,
        spawner: Spawner,
        *,
        logs: Callable[[str], TaskLogs],
        environment: Callable[[TaskSpec], dict[str, str]],
        on_exit: Callable[[int, Callable[[int], None]], None],
        emit: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._ports = config.ports
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._spawner = spawner
        self._logs = logs
        self._environment = environment
        self._on_exit = on_exit
        self._emit = emit
        self._running: dict[int, _Command] = {}
        """By pid of the supervisor."""

    def run(
        self,
        spec: TaskSpec,
        command: str,
        timeout_s: float,
        done: Callable[[int, str], None],
        *,
        log: bool = True,
    ) -> None:
        """Run a shell command of the task; ``done(status, detail)`` is called once it has ended.

        ``log`` sends its output to the task's logs. After ``timeout_s`` it is killed. Whatever it has
        started and left behind is killed with it.
        """
        logs = self._logs(spec.name)
        streams = (-1, logs.stdout, logs.stderr) if log else (-1, -1, -1)
        argv = ["/bin/sh", "-c", command]
        env, cgroup, limits = self._environment(spec), self._cgroups[spec.name], limits_of(spec)

        def work() -> None:
            supervise(self._spawner, argv, env, cgroup, streams, name="galaxy-command", limits=limits)

        try:
            supervisor = self._spawner.supervisor(work)
        except OSError as error:
            detail = f"cannot create a process: {error.strerror}"
            # From the loop, because the caller is still carrying out effects.
            self._loop.after(0.0, lambda: done(CANNOT_EXEC, detail))
            return
        running = _Command(spec.name, supervisor, done)
        self._running[supervisor] = running
        running.timer = self._loop.after(timeout_s, lambda: self._on_timeout(running, timeout_s))
        self._on_exit(supervisor, lambda status: self._on_ended(running, status))

    def end(self, task: str) -> None:
        """Kill the commands of a task; their outcomes are emitted once they have ended."""
        for running in self._running.values():
            if running.task == task:
                running.kill()

    def is_running(self, task: str) -> bool:
        """Return whether a command of the task, or something that it started, may still run."""
        return any(running.task == task for running in self._running.values())

    def _on_timeout(self, running: _Command, timeout_s: float) -> None:
        running.detail = f"not ended within {timeout_s:g} s"
        running.kill()
        # A process in an uninterruptible system call does not end. The outcome does not wait for it.
        running.timer = self._loop.after(KILL_S_MAX, lambda: running.answer(TIMED_OUT))

    def _on_ended(self, running: _Command, status: int) -> None:
        del self._running[running.supervisor]
        code = exit_code(status)
        running.detail = running.detail or f"exit code {code}"
        running.answer(code)

    def reload(self, effect: RunReload, spec: TaskSpec | None) -> None:
        """Run a task's reload command; without one the reload succeeds at once."""

        def done(status: int, detail: str) -> None:
            self._emit(ReloadEnded(task=effect.task, run=effect.run, status=status, detail=detail))

        if spec is not None and effect.command:
            self.run(spec, effect.command, RELOAD_S_MAX, done)
        else:
            done(0, "")

    def probe(self, effect: RunProbe, spec: TaskSpec | None) -> None:
        """Run one health check of a task."""
        check = effect.check

        def answer(ok: bool, detail: str) -> None:
            self._emit(
                ProbeAnswered(task=effect.task, run=effect.run, probe=effect.probe, ok=ok, detail=detail)
            )

        if spec is None:
            return
        if check.type == "command":
            self.run(
                spec,
                check.command,
                check.timeout,
                lambda status, detail: answer(status == 0, detail),
                log=False,
            )
            return
        name = check.port or (spec.ports[0].name if spec.ports else "")
        port = self._ports.get(name)
        if port is None:
            answer(False, f"the container has no port named {name!r}")
            return
        NetworkProbe(self._loop, check, port, answer)


class _Command:
    """A command that runs, or is being killed; ``detail`` says how it ended, for people."""

    def __init__(self, task: str, supervisor: int, done: Callable[[int, str], None]) -> None:
        self.task = task
        self.supervisor = supervisor
        self.detail = ""
        self.timer: Timer | None = None
        self._done: Callable[[int, str], None] | None = done

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.supervisor, signal.SIGTERM)

    def answer(self, status: int) -> None:
        """Report the outcome, once."""
        if self.timer is not None:
            self.timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(status, self.detail)
