"""Commands of a spec other than its program: to stop it, to reload its data, to check its health."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.worker import WorkerConfig
from galaxy.worker_entry.event_loop import EventLoop
from galaxy.worker_entry.logic.effects import RunProbe, RunReload
from galaxy.worker_entry.logic.events import Event, ProbeAnswered, ReloadEnded
from galaxy.worker_entry.probes import NetworkProbe
from galaxy.worker_entry.processes import signal_all
from galaxy.worker_entry.spawn import CANNOT_EXEC, Spawner, exit_code, status_of
from galaxy.worker_entry.task_logs import TaskLogs

RELOAD_S_MAX: Final = 60.0


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

        ``log`` sends its output to the task's logs. After ``timeout_s`` its process group is killed.
        """
        logs = self._logs(spec.name)
        streams = {"stdout": logs.stdout, "stderr": logs.stderr} if log else {}
        try:
            pid = self._spawner.program(
                ["/bin/sh", "-c", command],
                self._environment(spec),
                self._cgroups[spec.name],
                stdout=streams.get("stdout", -1),
                stderr=streams.get("stderr", -1),
            )
        except OSError as error:
            detail = f"cannot create a process: {error.strerror}"
            # From the loop, because the caller is still carrying out effects.
            self._loop.after(0.0, lambda: done(CANNOT_EXEC, detail))
            return
        timed_out = False

        def kill() -> None:
            nonlocal timed_out
            timed_out = True
            signal_all([-pid], signal.SIGKILL)

        timer = self._loop.after(timeout_s, kill)

        def on_exit(status: int) -> None:
            timer.cancel()
            code, number, _ = status_of(status)
            if timed_out:
                detail = f"not ended within {timeout_s:g} s"
            else:
                detail = f"signal {number}" if number else f"exit code {code}"
            done(exit_code(status), detail)

        self._on_exit(pid, on_exit)

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
