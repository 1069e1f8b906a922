"""AppWorker's shell: performs what the logic owes, and tells it what became of that.

One thread, one loop. Whatever happens becomes an event for ``logic.pod.step``; the effects
that it returns are carried out here, and their outcomes come back as events.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from galaxy.model.base import WIRE_VERSION
from galaxy.model.pod import Exit, PodFound
from galaxy.model.spec import TaskSpec
from galaxy.model.worker import (
    Exec,
    ExecKill,
    ExecResize,
    Order,
    Package,
    Quit,
    Report,
    TaskCgroup,
    ToWorker,
    WorkerConfig,
)
from galaxy.worker_entry.channel import Channel
from galaxy.worker_entry.environment import environment, task_id
from galaxy.worker_entry.execs import Execs
from galaxy.worker_entry.logic.nouns import (
    CancelDeploy,
    Effect,
    Emptied,
    EndContainer,
    Ended,
    Event,
    KillTask,
    Ordered,
    PlacePackages,
    Pod,
    Probe,
    Probed,
    QuitAsked,
    ReloadEnded,
    RunReload,
    StagePackages,
    Started,
    StartProgram,
    StopCommandEnded,
    StopProgram,
    Terminate,
    Ticked,
)
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.report import found
from galaxy.worker_entry.logs import TaskLogs
from galaxy.worker_entry.loop import Loop, Timer
from galaxy.worker_entry.packages import Deployments
from galaxy.worker_entry.probes import NetworkProbe
from galaxy.worker_entry.processes import kill_descendants, members, oom_kills, set_pids_max, signal_all
from galaxy.worker_entry.spawn import CANNOT_EXEC, Spawner, status_of
from galaxy.worker_entry.understudy import Understudy

RELOAD_S_MAX: Final = 60.0
QUIT_MARGIN_S: Final = 10.0
"""After the stop timeout: then the container ends, whatever still lives in it."""
_REAPED_AT_ONCE: Final = 2048
_LOOK_AGAIN_S: Final = (0.02, 1.0)
"""First and longest pause between looks whether a task's processes are gone."""


class Program:
    """A task's program of now, or the last one: its pid stays known for finding its processes."""

    def __init__(self) -> None:
        self.pid = 0
        self.alive = False
        self.oom_kills = 0
        self.leaving: _Leaving | None = None


class _Leaving:
    """Processes of a task are waited for, and killed if ``kill``."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.kill = False
        self.spare = True
        self.pause_s = _LOOK_AGAIN_S[0]
        self.timer: Timer | None = None


class Worker:
    """One container's AppWorker."""

    def __init__(self, config: WorkerConfig) -> None:
        self.loop = Loop()
        self.done = False
        self._config = config
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._pod = Pod(known=tuple(self._cgroups))
        self._events: deque[Event] = deque()
        self._stepping = False
        self._wake: Timer | None = None
        self._waiting: dict[int, Callable[[int], None]] = {}
        self._programs: dict[str, Program] = {}
        self._logs: dict[str, TaskLogs] = {}
        self._spawner = Spawner(config)
        self._understudy = Understudy(config) if config.understudy_pid else None
        self._channel = Channel(
            self.loop,
            config.listen_fd,
            received=self._received,
            connected=self._connected,
            lost=self._agent_lost,
            report=lambda: Report(pod=self._found(), wire=WIRE_VERSION),
        )
        self._reported: PodFound | None = None
        self._deployments = Deployments(
            self.loop,
            self._spawner,
            config.workspace,
            ask=self._channel.send,
            watch=self._watch,
            done=self.feed,
        )
        self._execs = Execs(self._spawner, config.run_uid, send=self._channel.send, watch=self._watch)
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        self.loop.on_signal(signal.SIGTERM, self._asked_to_quit)

    def feed(self, event: Event) -> None:
        """Take in an event, carry out what follows, and report if the pod looks different now."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                self._pod, effects = step(self._pod, self._events.popleft(), time.monotonic())
                for effect in effects:
                    self._perform(effect)
        finally:
            self._stepping = False
        self._set_alarm()
        if (now := self._found()) != self._reported:
            self._reported = now
            self._channel.send_report()

    def log(self, code: str, message: str) -> None:
        self._channel.log(code, message)

    def after_fault(self, error: str) -> None:
        """Go on after a fault of our own, which may have cut short a round of reaping."""
        self.log("fault", error)
        self.loop.after(0.0, self._reap)

    def kill_everything(self) -> None:
        """SIGKILL to whatever descends from AppWorker: for when no namespace does it."""
        kill_descendants()

    # ---- effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case StartProgram():
                self._start(effect)
            case StopProgram():
                self._stop(effect)
            case Terminate():
                self._signal(effect.task, signal.SIGTERM, spare=True)
            case KillTask():
                self._leave(effect.task, effect.run, kill=True, spare=effect.spare)
            case StagePackages():
                self._deployments.stage(effect, self._cgroups[effect.task])
            case PlacePackages():
                self._deployments.place(effect, self._cgroups[effect.task])
            case CancelDeploy():
                self._deployments.cancel(effect.task)
            case Probe():
                self._probe(effect)
            case RunReload():
                self._reload(effect)
            case EndContainer():
                self.done = True

    def _start(self, effect: StartProgram) -> None:
        name, spec = effect.task, effect.spec
        program = self._programs.setdefault(name, Program())
        cgroup = self._cgroups[name]
        now_s = time.time()
        logs = self._logs_of(name)
        logs.begin_run(effect.run, now_s)
        self.feed(Started(task=name, run=effect.run, at_s=now_s))
        program.oom_kills = oom_kills(cgroup)
        try:
            program.pid = self._become(["/bin/sh", "-c", spec.start], self._environment(spec), cgroup, logs)
        except OSError as error:
            self.log("start-failed", f"{name}: no process could be made: {error.strerror}")
            self.feed(Ended(task=name, run=effect.run, exit=Exit(at_s=now_s, code=CANNOT_EXEC)))
            return
        finally:
            logs.write_index()
        program.alive = True
        self._watch(program.pid, lambda status: self._ended(name, effect.run, status))

    def _become(self, argv: list[str], env: dict[str, str], cgroup: TaskCgroup, logs: TaskLogs) -> int:
        """Start a program: by the child that waits for the first one, else by a fork."""
        understudy, self._understudy = self._understudy, None
        if understudy is not None:
            pid = understudy.start(argv, env, cgroup, (self._spawner.devnull, logs.stdout, logs.stderr))
            if pid:
                return pid
        return self._spawner.program(argv, env, cgroup, stdout=logs.stdout, stderr=logs.stderr)

    def _ended(self, name: str, run: int, status: int) -> None:
        program = self._programs[name]
        program.alive = False
        self._logs_of(name).drain()
        code, number, core = status_of(status)
        # A shell around the program turns its SIGKILL into 137; the kernel's count is the proof.
        killed = number == signal.SIGKILL or code == 128 + signal.SIGKILL
        oom = killed and oom_kills(self._cgroups[name]) > program.oom_kills
        exit_ = Exit(at_s=time.time(), code=code, signal=number, core=core, oom=oom)
        self.feed(Ended(task=name, run=run, exit=exit_))

    def _stop(self, effect: StopProgram) -> None:
        name, run = effect.task, effect.run
        if not effect.spare:
            self._execs.kill_all(name)
        self._leave(name, run, kill=False, spare=effect.spare)
        if effect.spec.stop:
            self._command(
                effect.spec,
                effect.spec.stop,
                effect.timeout_s,
                lambda status, _: self.feed(StopCommandEnded(task=name, run=run, status=status)),
            )
        else:
            self._signal(name, signal.SIGTERM, spare=True)

    def _signal(self, name: str, number: int, *, spare: bool) -> None:
        signal_all(self._members(name, spare=spare), number)

    def _members(self, name: str, *, spare: bool) -> set[int]:
        program = self._programs.setdefault(name, Program())
        spared = self._deployments.pids(name) | (self._execs.keepers() if spare else set())
        return members(self._cgroups[name], program.pid, task_id(self._config.container, name), spared)

    # ---- until no process is left

    def _leave(self, name: str, run: int, *, kill: bool, spare: bool) -> None:
        if name not in self._cgroups:  # A task that the container has no room for never ran.
            self.feed(Emptied(task=name, run=run))
            return
        program = self._programs.setdefault(name, Program())
        leaving = program.leaving
        if leaving is None or leaving.run != run:
            self._forget_leaving(program)
            leaving = program.leaving = _Leaving(run)
        leaving.kill = leaving.kill or kill
        leaving.spare = spare
        leaving.pause_s = _LOOK_AGAIN_S[0]
        if kill and not spare:
            self._execs.kill_all(name)
        self._look(name)

    def _look(self, name: str) -> None:
        program = self._programs[name]
        leaving = program.leaving
        if leaving is None:
            return
        cgroup = self._cgroups[name]
        pids = self._members(name, spare=leaving.spare)
        if not pids and not program.alive:
            self._forget_leaving(program)
            if leaving.kill:
                set_pids_max(cgroup, cgroup.pids_max)
            self.feed(Emptied(task=name, run=leaving.run))
            return
        if leaving.kill:
            set_pids_max(cgroup, 0)
            signal_all(pids, signal.SIGKILL)
        # Deaths wake us; the timer is for what is born or moved between look and signal.
        if leaving.timer is not None:
            leaving.timer.cancel()
        leaving.timer = self.loop.after(leaving.pause_s, lambda: self._look(name))
        leaving.pause_s = min(leaving.pause_s * 2, _LOOK_AGAIN_S[1])

    def _forget_leaving(self, program: Program) -> None:
        if program.leaving is not None and program.leaving.timer is not None:
            program.leaving.timer.cancel()
        program.leaving = None

    # ---- commands and health

    def _command(
        self,
        spec: TaskSpec,
        command: str,
        timeout_s: float,
        done: Callable[[int, str], None],
        *,
        log: bool = True,
    ) -> None:
        """Run a command of the task's beside its program; ``done(status, detail)`` once it ended."""
        logs = self._logs_of(spec.name)
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
            self.loop.after(0.0, lambda: done(CANNOT_EXEC, detail))  # The caller is amid its effects.
            return
        late = []

        def kill() -> None:
            late.append(True)
            signal_all([-pid], signal.SIGKILL)

        timer = self.loop.after(timeout_s, kill)

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

    def _reload(self, effect: RunReload) -> None:
        spec = self._spec(effect.task)

        def done(status: int, detail: str) -> None:
            self.feed(ReloadEnded(task=effect.task, run=effect.run, status=status, detail=detail))

        if spec is not None and effect.command:
            self._command(spec, effect.command, RELOAD_S_MAX, done)
        else:
            done(0, "")

    def _probe(self, effect: Probe) -> None:
        spec, check = self._spec(effect.task), effect.check

        def answer(ok: bool, detail: str) -> None:
            self.feed(Probed(task=effect.task, run=effect.run, probe=effect.probe, ok=ok, detail=detail))

        if spec is None:
            return
        if check.type == "command":
            self._command(
                spec,
                check.command,
                check.timeout,
                lambda status, detail: answer(status == 0, detail),
                log=False,
            )
            return
        name = check.port or (spec.ports[0].name if spec.ports else "")
        port = self._config.ports.get(name)
        if port is None:
            answer(False, f"the container has no port named {name!r}")
            return
        NetworkProbe(self.loop, check, port, answer)

    # ---- what comes in

    def _received(self, packet: ToWorker, files: list[int]) -> None:
        match packet:
            case Package():
                self._deployments.arrived(packet, files)
                return
            case Exec():
                self._exec(packet, files)
                return
        for fd in files:
            os.close(fd)
        match packet:
            case Order():
                self._ordered(packet)
            case ExecResize():
                self._execs.resize(packet)
            case ExecKill():
                self._execs.kill(packet)
            case Quit():
                self._quit(packet.stop_timeout)

    def _ordered(self, packet: Order) -> None:
        order = packet.order
        ours = self._config.container, self._config.incarnation
        if (order.pod, order.incarnation) != ours:
            self.log(
                "foreign-order", f"an order for {order.pod}, incarnation {order.incarnation}: not for {ours}"
            )
            return
        self.feed(Ordered(order=order))

    def _exec(self, packet: Exec, files: list[int]) -> None:
        spec, order = self._spec(packet.task), self._pod.order
        if spec is None or order is None or packet.task not in self._cgroups:
            for fd in files:
                os.close(fd)
            self._execs.refuse(
                packet.request, f"there is no task {packet.task!r} in {self._config.container}"
            )
            return
        env = environment(self._config, order, spec, packet.env)
        self._execs.start(packet, files, env, self._cgroups[packet.task])

    def _connected(self) -> None:
        self._deployments.ask_again()

    def _agent_lost(self) -> None:
        self._execs.kill_all()

    def _asked_to_quit(self) -> None:
        order = self._pod.order
        self._quit(order.stop_timeout if order else 0.0)

    def _quit(self, stop_timeout_s: float) -> None:
        self.feed(QuitAsked(stop_timeout_s=stop_timeout_s))
        self.loop.after(stop_timeout_s + QUIT_MARGIN_S, lambda: self._perform(EndContainer()))

    def _reap(self) -> None:
        """Take every ended child: programs, commands, and orphans that became ours."""
        for _ in range(_REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = self._waiting.pop(pid, None)
            if ended is not None:
                ended(status)
        else:
            self.loop.after(0.0, self._reap)
        for name in list(self._programs):
            self._look(name)

    # ---- small things

    def _watch(self, pid: int, ended: Callable[[int], None]) -> None:
        self._waiting[pid] = ended

    def _set_alarm(self) -> None:
        at_s = wake_s(self._pod)
        if self._wake is not None and self._wake.at_s != at_s:
            self._wake.cancel()
            self._wake = None
        if at_s is not None and self._wake is None:
            self._wake = self.loop.at(at_s, self._alarm)

    def _alarm(self) -> None:
        self._wake = None
        self.feed(Ticked())

    def _found(self) -> PodFound:
        config = self._config
        # Inside a PID namespace our own pid is 1; only the agent knows the host's.
        pid = 0 if config.isolated else os.getpid()
        return found(
            self._pod, pod_id=config.container, incarnation=config.incarnation, pid=pid, ports=config.ports
        )

    def _spec(self, name: str) -> TaskSpec | None:
        return next((task.live or task.spec for task in self._pod.tasks if task.name == name), None)

    def _environment(self, spec: TaskSpec) -> dict[str, str]:
        assert self._pod.order is not None, "nothing is started before an order"
        return environment(self._config, self._pod.order, spec)

    def _logs_of(self, name: str) -> TaskLogs:
        if name not in self._logs:
            self._logs[name] = TaskLogs(
                self.loop,
                self._config.log_fd,
                name,
                bytes_max=self._config.log_bytes_max,
                files_max=self._config.log_files_max,
                lost=lambda message: self.log("log-lost", message),
            )
        return self._logs[name]
