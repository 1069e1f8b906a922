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
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.messages.worker import (
    Exec,
    ExecKill,
    ExecResize,
    Order,
    PackageAnswer,
    Quit,
    Report,
    ToWorker,
    WorkerConfig,
)
from galaxy.worker_entry.channel import AgentChannel
from galaxy.worker_entry.commands import Commands
from galaxy.worker_entry.deployments import Deployments
from galaxy.worker_entry.environment import environment
from galaxy.worker_entry.event_loop import Loop, Timer
from galaxy.worker_entry.execs import Execs
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    Effect,
    EndContainer,
    KillTask,
    PlacePackages,
    RunProbe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
    TerminateTask,
)
from galaxy.worker_entry.logic.events import Event, OrderReceived, QuitRequested, StopCommandEnded, Ticked
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe
from galaxy.worker_entry.processes import kill_descendants
from galaxy.worker_entry.programs import Programs
from galaxy.worker_entry.spawn import Spawner
from galaxy.worker_entry.task_logs import TaskLogs

QUIT_MARGIN_S: Final = 10.0
"""After the stop timeout: then the container ends, whatever still lives in it."""
_REAPED_AT_ONCE: Final = 2048


class AppWorker:
    """One container's AppWorker."""

    def __init__(self, config: WorkerConfig) -> None:
        self.loop = Loop()
        self.done = False
        self._config = config
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._pod = SupervisedPod(known=tuple(self._cgroups))
        self._events: deque[Event] = deque()
        self._stepping = False
        self._wake: Timer | None = None
        self._waiting: dict[int, Callable[[int], None]] = {}
        self._logs: dict[str, TaskLogs] = {}
        self._spawner = Spawner(config)
        self._programs = Programs(
            self.loop,
            config,
            self._spawner,
            logs=self._logs_of,
            spared=self._spared,
            watch=self._watch,
            failed=self.log,
            done=self.feed,
        )
        self._channel = AgentChannel(
            self.loop,
            config.listen_fd,
            received=self._received,
            connected=self._connected,
            lost=self._agent_lost,
            report=lambda: Report(pod=self._found(), wire=WIRE_VERSION),
        )
        self._reported: ObservedPod | None = None
        self._deployments = Deployments(
            self.loop,
            self._spawner,
            config.workspace,
            ask=self._channel.send,
            watch=self._watch,
            done=self.feed,
        )
        self._execs = Execs(self._spawner, config.run_uid, send=self._channel.send, watch=self._watch)
        self._commands = Commands(
            self.loop,
            config,
            self._spawner,
            logs=self._logs_of,
            environment=self._environment,
            watch=self._watch,
            done=self.feed,
        )
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
                self._programs.start(
                    effect.task, effect.run, effect.spec.start, self._environment(effect.spec)
                )
            case StopProgram():
                self._stop(effect)
            case TerminateTask():
                self._programs.signal(effect.task, signal.SIGTERM)
            case KillTask():
                self._kill(effect)
            case StagePackages():
                self._deployments.stage(effect, self._cgroups[effect.task])
            case PlacePackages():
                self._deployments.place(effect, self._cgroups[effect.task])
            case CancelDeploy():
                self._deployments.cancel(effect.task)
            case RunProbe():
                self._commands.probe(effect, self._spec(effect.task))
            case RunReload():
                self._commands.reload(effect, self._spec(effect.task))
            case EndContainer():
                self.done = True

    def _stop(self, effect: StopProgram) -> None:
        name, run = effect.task, effect.run
        if not effect.keep_execs:
            self._execs.kill_all(name)
        self._programs.leave(name, run, kill=False, keep_execs=effect.keep_execs)
        if effect.spec.stop:
            self._commands.run(
                effect.spec,
                effect.spec.stop,
                effect.timeout_s,
                lambda status, _: self.feed(StopCommandEnded(task=name, run=run, status=status)),
            )
        else:
            self._programs.signal(name, signal.SIGTERM)

    def _kill(self, effect: KillTask) -> None:
        if not effect.keep_execs:
            self._execs.kill_all(effect.task)
        self._programs.leave(effect.task, effect.run, kill=True, keep_execs=effect.keep_execs)

    def _spared(self, name: str, keep_execs: bool) -> set[int]:
        """Return the roots of processes in a task's cgroup that are not its program's."""
        return self._deployments.pids(name) | (self._execs.keepers() if keep_execs else set())

    # ---- what comes in

    def _received(self, packet: ToWorker, files: list[int]) -> None:
        match packet:
            case PackageAnswer():
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
        self.feed(OrderReceived(order=order))

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
        self.feed(QuitRequested(stop_timeout_s=stop_timeout_s))
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
        self._programs.look_at_all()

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

    def _found(self) -> ObservedPod:
        config = self._config
        # Inside a PID namespace our own pid is 1; only the agent knows the host's.
        pid = 0 if config.isolated else os.getpid()
        return observe(
            self._pod, pod_id=config.container, incarnation=config.incarnation, pid=pid, ports=config.ports
        )

    def _spec(self, name: str) -> TaskSpec | None:
        return next((task.running_spec or task.spec for task in self._pod.tasks if task.name == name), None)

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
