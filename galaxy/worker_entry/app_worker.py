"""AppWorker's shell: carries out the effects of the pod's logic and feeds it their outcomes.

One thread, one loop. Everything that happens becomes an event for ``logic.pod.step``.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from galaxy.container.kernel.inherited import ceilings
from galaxy.model.base import WIRE_VERSION
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.pod import ObservedPod, PodOrder
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
from galaxy.worker_entry.channel import AgentChannel, close_all
from galaxy.worker_entry.commands import Commands
from galaxy.worker_entry.deployments import Deployments
from galaxy.worker_entry.environment import environment, limits_of
from galaxy.worker_entry.event_loop import EventLoop, Timer
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
from galaxy.worker_entry.logic.events import (
    Event,
    OrderReceived,
    ProcessesOomKilled,
    QuitRequested,
    StopCommandEnded,
    Ticked,
)
from galaxy.worker_entry.logic.failures import failure_of
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe
from galaxy.worker_entry.oom_watch import OomWatch
from galaxy.worker_entry.programs import Programs
from galaxy.worker_entry.spawn import Spawner
from galaxy.worker_entry.task_logs import TaskLogs

QUIT_MARGIN_S: Final = 10.0
"""This long after the stop timeout the container ends, even if programs still run in it."""
FAULT_PAUSE_S: Final = 0.05
KILL_RETRY_S: Final = 0.2
_REAPED_AT_ONCE: Final = 2048


class AppWorker:
    """The AppWorker of one container."""

    def __init__(self, config: WorkerConfig) -> None:
        self.loop = EventLoop(self.on_fault)
        self.done = False
        self._config = config
        self._cgroups = {cgroup.name: cgroup for cgroup in config.tasks}
        self._pod = SupervisedPod(known=tuple(self._cgroups), ceilings=ceilings())
        self._events: deque[Event] = deque()
        self._stepping = False
        self._wake: Timer | None = None
        self._on_exit: dict[int, Callable[[int], None]] = {}
        """By pid of a child: what to call with its wait status."""
        self._logs: dict[str, TaskLogs] = {}
        self._reported: ObservedPod | None = None
        self._spawner = Spawner(config)
        self._oom = OomWatch(self.loop, config.tasks, self._on_oom_kills)
        self._programs = Programs(
            self.loop,
            config,
            self._spawner,
            oom=self._oom,
            logs=self._logs_of,
            excluded=self._excluded,
            has_commands=lambda name: self._commands.is_running(name),
            on_exit=self._call_on_exit,
            log=self.log,
            emit=self.handle,
        )
        self._channel = AgentChannel(
            self.loop,
            config.listen_fd,
            on_packet=self._on_packet,
            on_connected=self._on_connected,
            on_lost=self._on_agent_lost,
            report=lambda: Report(pod=self._observe(), wire=WIRE_VERSION),
        )
        self._deployments = Deployments(
            self.loop,
            self._spawner,
            config.workspace,
            request=self._channel.send,
            on_exit=self._call_on_exit,
            emit=self.handle,
        )
        self._execs = Execs(
            self._spawner, config.run_uid, send=self._channel.send, on_exit=self._call_on_exit
        )
        self._commands = Commands(
            self.loop,
            config,
            self._spawner,
            logs=self._logs_of,
            environment=self._environment,
            on_exit=self._call_on_exit,
            emit=self.handle,
        )
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        self.loop.on_signal(signal.SIGTERM, self._on_sigterm)

    def handle(self, event: Event) -> None:
        """Step the logic with an event, carry out its effects, and report the pod if it changed.

        Effects may raise further events; those are queued and handled in order. Every effect is tried,
        and the failure of one is an event as well.
        """
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._stepping = False
        self._set_timer()
        if (now := self._observe()) != self._reported:
            self._reported = now
            self._channel.send_report()

    def _step(self, event: Event) -> None:
        try:
            self._pod, effects = step(self._pod, event, time.monotonic())
        except Exception as error:  # noqa: BLE001  (a defect of ours; the events after this one are handled)
            self.on_fault(error)
            return
        for effect in effects:
            self._try(effect)

    def _try(self, effect: Effect) -> None:
        try:
            self._carry_out(effect)
        except Exception as error:  # noqa: BLE001  (it must not keep the other effects from being tried)
            cause = (error.strerror or str(error)) if isinstance(error, OSError) else describe(error)
            name = type(effect).__name__
            self.log("effect-failed", f"{name} of {getattr(effect, 'task', 'the pod')}: {describe(error)}")
            failed = failure_of(effect, f"cannot be carried out: {cause}", time.time())
            if failed is not None:
                self._events.append(failed)
            if isinstance(effect, KillTask):
                self.loop.after(KILL_RETRY_S, lambda: self._try(effect))

    def log(self, code: str, message: str) -> None:
        """Write a line to the agent's log."""
        self._channel.log(code, message)

    def on_fault(self, error: Exception) -> None:
        """Log an exception, and reap again: the exception may have interrupted that."""
        self.log("fault", describe(error))
        self.loop.after(FAULT_PAUSE_S, self._reap)

    # ---- effects

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case StartProgram():
                env = self._environment(effect.spec)
                self._programs.start(effect, env)
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
        self._programs.await_empty(name, run, kill=False, keep_execs=effect.keep_execs)
        if not effect.keep_execs:
            self._execs.kill_all(name)
        self._commands.end(name)  # Health checks and reloads, before the stop command.
        if effect.spec.stop:
            self._commands.run(
                effect.spec,
                effect.spec.stop,
                effect.timeout_s,
                lambda status, _: self.handle(StopCommandEnded(task=name, run=run, status=status)),
            )
        else:
            self._programs.signal(name, signal.SIGTERM)

    def _kill(self, effect: KillTask) -> None:
        self._programs.await_empty(effect.task, effect.run, kill=True, keep_execs=effect.keep_execs)
        if not effect.keep_execs:
            self._execs.kill_all(effect.task)
        self._commands.end(effect.task)

    def _excluded(self, name: str, keep_execs: bool) -> set[int]:
        """Return the roots of processes in a task's cgroup that do not belong to its program."""
        return self._deployments.pids(name) | (self._execs.supervisors() if keep_execs else set())

    # ---- packets of the agent

    def _on_packet(self, packet: ToWorker, files: list[int]) -> None:
        match packet:
            case PackageAnswer():
                self._deployments.on_answer(packet, files)
                return
            case Exec():
                self._start_exec(packet, files)
                return
        close_all(files)
        match packet:
            case Order():
                self._on_order(packet)
            case ExecResize():
                self._execs.resize(packet)
            case ExecKill():
                self._execs.kill(packet)
            case Quit():
                self._quit(packet.stop_timeout)

    def _on_order(self, packet: Order) -> None:
        order = packet.order
        ours = self._config.container, self._config.incarnation
        if (order.pod, order.incarnation) != ours:
            self.log(
                "foreign-order", f"an order for {order.pod}, incarnation {order.incarnation}: not for {ours}"
            )
            return
        before = self._pod.order
        self.handle(OrderReceived(order=order))
        self._follow_pids(before)

    def _follow_pids(self, before: PodOrder | None) -> None:
        """Set the limits on processes that an order has changed: a kill may have restored the old ones."""
        if before is None or self._pod.order is None:
            return
        old = {task.name: task.pids for task in before.tasks}
        for task in self._pod.order.tasks:
            if old.get(task.name, task.pids) != task.pids:
                self._programs.limit_pids(task.name, task.pids)

    def _start_exec(self, packet: Exec, files: list[int]) -> None:
        spec, order = self._spec(packet.task), self._pod.order
        if spec is None or order is None or packet.task not in self._cgroups:
            close_all(files)
            self._execs.refuse(
                packet.request, f"there is no task {packet.task!r} in {self._config.container}"
            )
            return
        env = environment(self._config, order, spec, packet.env)
        self._execs.start(packet, files, env, limits_of(spec), self._cgroups[packet.task])

    def _on_connected(self) -> None:
        self._deployments.repeat_requests()

    def _on_agent_lost(self) -> None:
        self._execs.kill_attended()

    def _on_sigterm(self) -> None:
        order = self._pod.order
        self._quit(order.stop_timeout if order else 0.0)

    def _quit(self, stop_timeout_s: float) -> None:
        self.handle(QuitRequested(stop_timeout_s=stop_timeout_s))
        self.loop.after(stop_timeout_s + QUIT_MARGIN_S, lambda: self._carry_out(EndContainer()))

    # ---- children

    def _call_on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """Call ``call(wait_status)`` when the child ``pid`` has ended."""
        self._on_exit[pid] = call

    def _reap(self) -> None:
        """Reap every ended child: programs, commands, and orphans that became children of PID 1."""
        for _ in range(_REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            on_exit = self._on_exit.pop(pid, None)
            if on_exit is not None:
                try:
                    on_exit(status)
                except Exception as error:  # noqa: BLE001  (the other children are reaped)
                    self.on_fault(error)
        else:
            self.loop.after(0.0, self._reap)
        self._oom.check_all()
        self._programs.check_all()

    def _on_oom_kills(self, task: str, count: int, processes: str) -> None:
        event = ProcessesOomKilled(task=task, at_s=time.time(), count=count, processes=processes)
        self.handle(event)

    # ---- helpers

    def _set_timer(self) -> None:
        at_s = wake_s(self._pod)
        if self._wake is not None and self._wake.at_s != at_s:
            self._wake.cancel()
            self._wake = None
        if at_s is not None and self._wake is None:
            self._wake = self.loop.at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._wake = None
        self.handle(Ticked())

    def _observe(self) -> ObservedPod:
        config = self._config
        # Inside a PID namespace our own pid is 1; the agent fills in the host's.
        pid = 0 if config.isolated else os.getpid()
        return observe(
            self._pod, pod_id=config.container, incarnation=config.incarnation, pid=pid, ports=config.ports
        )

    def _spec(self, name: str) -> TaskSpec | None:
        """Return the spec of a task: the one its program runs with, else the desired one."""
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
                on_lost=lambda message: self.log("log-lost", message),
            )
        return self._logs[name]


def describe(error: Exception) -> str:
    """Return an error and the line that raised it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "?"
    return f"{type(error).__name__} at {where}: {error}"[:1000]
