"""Commands that the spec names beside a program: to stop it, to reload its data, to ask its health."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.worker import WorkerConfig
from galaxy.worker_entry.event_loop import Loop
from galaxy.worker_entry.logic.effects import RunProbe, RunReload
from galaxy.worker_entry.logic.events import Event, ProbeAnswered, ReloadEnded
from galaxy.worker_entry.probes import NetworkProbe
from galaxy.worker_entry.processes import signal_all
from galaxy.worker_entry.spawn import CANNOT_EXEC, Spawner, status_of
from galaxy.worker_entry.task_logs import TaskLogs

RELOAD_S_MAX: Final = 60.0


class Commands:
    """Runs them in their task's cgroup, each no longer than its timeout, and tells what came of it."""

    def __init__(
        self,
        loop: Loop,
        config: WorkerConfig,
        spawner: Spawner,
        *,
        logs: Callable[[str], TaskLogs],
        environment: Callable[[TaskSpec], dict[str, str]],
        watch: Callable[[int, Callable[[int], None]], None],
        done: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._ports = config.ports
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._spawner = spawner
        self._logs = logs
        self._environment = environment
        self._watch = watch
        self._done = done

    def run(
        self,
        spec: TaskSpec,
        command: str,
        timeout_s: float,
        done: Callable[[int, str], None],
        *,
        log: bool = True,
    ) -> None:
        """Run a command of the task's beside its program; ``done(status, detail)`` once it ended."""
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
            detail = f"no process could be made: {error.strerror}"
            self._loop.after(0.0, lambda: done(CANNOT_EXEC, detail))  # The caller is amid its effects.
            return
        late = []

        def kill() -> None:
            late.append(True)
            signal_all([-pid], signal.SIGKILL)

        timer = self._loop.after(timeout_s, kill)

        def ended(status: int) -> None:
            timer.cancel()
            code, number, _ = status_of(status)
            detail = (
                f"no end in {timeout_s:g} s"
                if late
                else f"signal {number}"
                if number
                else f"exit code {code}"
            )
            done(code if code is not None else 128 + (number or 0), detail)

        self._watch(pid, ended)

    def reload(self, effect: RunReload, spec: TaskSpec | None) -> None:
        """Have a task's program read its new data."""

        def done(status: int, detail: str) -> None:
            self._done(ReloadEnded(task=effect.task, run=effect.run, status=status, detail=detail))

        if spec is not None and effect.command:
            self.run(spec, effect.command, RELOAD_S_MAX, done)
        else:
            done(0, "")

    def probe(self, effect: RunProbe, spec: TaskSpec | None) -> None:
        """Ask once how a task's program is."""
        check = effect.check

        def answer(ok: bool, detail: str) -> None:
            self._done(
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
