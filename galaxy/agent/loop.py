"""The agent's loop: one thread that collects events, steps the logic, commits, and then acts."""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from galaxy.agent.config import AgentConfig
from galaxy.agent.connections.worker_connection import close_all
from galaxy.agent.connections.worker_connections import ExecSink, WorkerConnections
from galaxy.agent.disk_store import AgentStore
from galaxy.agent.effect_retries import TRIES_MAX, EffectRetries
from galaxy.agent.host_ports import PortReservations, scan_sockets
from galaxy.agent.inbox import AgentInbox
from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import (
    ConnectWorker,
    DeliverOrder,
    DisconnectWorker,
    Effect,
    LaunchContainer,
    QuitWorker,
    RemoveContainer,
    ResizeContainer,
    WriteLog,
)
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    HostInspected,
    PortsScanned,
    PortsUnavailable,
    RunningContainer,
    ShutdownRequested,
    compact,
)
from galaxy.agent.logic.records import HostedContainer, HostedPhase
from galaxy.agent.packages.cache import PackageCache
from galaxy.agent.report_publisher import ReportPublisher
from galaxy.agent.resizer import ContainerResizer
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.protocol import Destroyed, Ended, Launched, LaunchFailed
from galaxy.container.runtime import Runtime, RuntimeEvent
from galaxy.errors import GalaxyError, HostError
from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.worker import Exec, ToWorker

_LOG: Final = logging.getLogger(__name__)
COMMIT_RETRY_S: Final = 1.0
SELECT_S_MAX: Final = 600.0


class AgentLoop:
    """Connects logic, disk, launcher, AppWorkers and leaders, in one thread.

    Invariant: effects and reports of a step leave only after its commit. While the disk
    cannot be written, events are kept and stepped again.
    """

    def __init__(
        self,
        config: AgentConfig,
        logic: AgentLogic,
        store: AgentStore,
        runtime: Runtime,
        packages: PackageCache,
        *,
        publisher: ReportPublisher,
        inbox: AgentInbox,
        run_as: tuple[int, int],
        rebooted: bool,
    ) -> None:
        self._config = config
        self._logic = logic
        self._store = store
        self._runtime = runtime
        self._publisher = publisher
        self._inbox = inbox
        self._run_as = run_as
        self._rebooted = rebooted
        self._reservations = PortReservations()
        self._resizer = ContainerResizer(runtime.resize, inbox.put)
        self._selector = selectors.DefaultSelector()
        self._connections = WorkerConnections(self._selector, packages, emit=self._emit, call_soon=inbox.call)
        self._events: list[Struct] = []
        self._commit_retry_at_s = 0.0
        """When to try the failed commit again; 0.0 if the last commit succeeded."""
        self._retries = EffectRetries()
        """Effects that failed: when to repeat each (monotonic), and how often it is tried."""
        self._ending = False
        self.digests = (0, 0)
        self.trouble = ""
        """Why orders are not obeyed now: the disk cannot be written. Empty otherwise."""
        self.phases: dict[str, HostedPhase] = {}
        self.has_stepped = False
        """Whether ``phases`` tells anything yet."""
        """Phase by container key. Replaced, never changed, so that other threads may read it."""
        self.on_remove: Callable[[str, int], None] = lambda _container, _incarnation: None
        """Called with a container before it is removed."""
        self.begun = threading.Event()
        self.empty = threading.Event()

    # ---- the thread

    def run(self) -> None:
        """Run until stopped. Unexpected errors propagate."""
        self._selector.register(self._runtime.fileno(), selectors.EVENT_READ, lambda _: None)
        self._selector.register(self._inbox.fileno(), selectors.EVENT_READ, lambda _: None)
        for port in self._logic.ports():
            self._reservations.reserve([port])
        self._collect_runtime_events()
        self._events.append(self._inspect_host())
        self._rebooted = False
        while self._turn():
            self.begun.set()
            for key, mask in self._selector.select(self._timeout_s()):
                key.data(mask)

    def stop(self) -> None:
        """Make ``run`` return; thread-safe."""
        self._inbox.call(self._stop)

    def _stop(self) -> None:
        self._ending = True

    def close(self) -> None:
        """Release everything; call after ``run`` has returned."""
        self._resizer.close()
        self._connections.close()
        self._selector.close()
        self._reservations.close()

    def _timeout_s(self) -> float:
        # While the disk cannot be written, the logic's own timers wait for the next commit.
        own_s = self._commit_retry_at_s or self._logic.wake_s()
        wakes = (
            own_s,
            self._connections.wake_s(),
            self._runtime.wake_s(),
            *self._retries.due_s(),
        )
        first = min((wake for wake in wakes if wake is not None), default=None)
        return SELECT_S_MAX if first is None else max(0.0, min(first - time.monotonic(), SELECT_S_MAX))

    def _turn(self) -> bool:
        """Handle everything that has arrived; return False once ``stop`` was called."""
        events, calls = self._inbox.take()
        self._events += events
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001  (a session's defect does not end the agent)
                _LOG.exception("event=agent.call-failed")
        self._collect_runtime_events()
        self._connections.reconnect_due()
        now_s = time.monotonic()
        self._repeat_due(now_s)
        if now_s >= self._commit_retry_at_s:
            self._step(now_s)
        return not self._ending

    def _step(self, now_s: float) -> None:
        """Step the logic until no event is left; commit before acting."""
        while True:
            batch, self._events = self._events, []
            if self._logic.needs_port_scan(batch):
                batch.insert(0, self._scan_ports())
            effects = self._logic.step(now_s, batch)
            changes = [change for table in self._logic.tables.values() for change in table.changes()]
            try:
                self._store.commit(changes)
            except HostError as error:
                self._on_commit_failed(batch, error)
                return
            if self._commit_retry_at_s:
                _LOG.info("event=agent.writable")
            self._commit_retry_at_s, self.trouble = 0.0, ""
            for table in self._logic.tables.values():
                table.accept()
            if changes:
                self._on_changed()
            self._carry_out(effects)
            if not self._events:
                break
        for due in self._logic.flush(now_s).reports:
            self._publisher.publish(due)

    def _on_commit_failed(self, batch: list[Struct], error: HostError) -> None:
        """Undo the step, keep its events, and try again in a moment."""
        for table in self._logic.tables.values():
            table.discard()
        if not self._commit_retry_at_s:
            _LOG.error("event=agent.unwritable cause=%r", str(error))
        self.trouble = f"{error.message}; {error.hint}" if error.hint else error.message
        self._events = compact([*batch, *self._events])
        self._commit_retry_at_s = time.monotonic() + COMMIT_RETRY_S

    def _on_changed(self) -> None:
        self.digests = self._logic.digests()
        self.has_stepped = True
        self.phases = {hosted.key: hosted.phase for hosted in self._logic.hosted_containers()}
        self._reservations.keep_only(self._logic.ports())
        if self.phases:
            self.empty.clear()
        else:
            self.empty.set()

    # ---- events

    def _emit(self, event: Struct) -> None:
        self._events.append(event)

    def _collect_runtime_events(self) -> None:
        for event in self._runtime.events():
            self._events.append(self._translate(event))

    def _translate(self, event: RuntimeEvent) -> Struct:
        match event:
            case Launched():
                _LOG.info("event=container.created %s pid=%d", _ids(event), event.pid)
                return ContainerLaunched(
                    container=event.container, incarnation=event.incarnation, pid=event.pid
                )
            case LaunchFailed():
                _LOG.warning("event=container.failed %s cause=%r", _ids(event), event.reason.message)
                return ContainerLaunchFailed(
                    container=event.container, incarnation=event.incarnation, reason=event.reason
                )
            case Ended():
                reason = end_reason(event)
                _LOG.info("event=container.ended %s cause=%r", _ids(event), reason.message)
                return ContainerEnded(container=event.container, incarnation=event.incarnation, reason=reason)
            case Destroyed():
                _LOG.info("event=container.removed %s", _ids(event))
                return ContainerDestroyed(container=event.container, incarnation=event.incarnation)
            case _:
                _LOG.warning("event=launcher.lost text='a new one was started; containers run on'")
                return self._inspect_host()

    def _inspect_host(self) -> HostInspected:
        running = (
            RunningContainer(container=one.container, incarnation=one.incarnation, pid=one.pid)
            for one in self._runtime.running()
        )
        return HostInspected(running=tuple(running), rebooted=self._rebooted)

    def _scan_ports(self) -> PortsScanned:
        listening, used = scan_sockets()
        others = self._reservations.of_others()
        return PortsScanned(listening=listening | others, used=used | others)

    # ---- effects

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        """Try every effect. A launch that fails is an event; other effects are repeated."""
        for effect in effects:
            self._retries.drop_superseded(effect)
            self._try(effect, tries_left=TRIES_MAX)

    def _try(self, effect: Effect, *, tries_left: int) -> None:
        try:
            self._carry_out_one(effect)
        except Exception as error:
            kind = type(effect).__name__
            if isinstance(effect, LaunchContainer):
                _LOG.exception("event=agent.effect-failed kind=%s container=%s", kind, effect.hosted.key)
                self._on_launch_failed(effect.hosted, error)
            elif tries_left <= 1:
                raise  # This process ends, and the next one reconciles the table with what runs.
            else:
                _LOG.warning("event=agent.effect-failed kind=%s cause=%r", kind, error)
                self._retries.add(effect, tries_left=tries_left - 1, now_s=time.monotonic())

    def _repeat_due(self, now_s: float) -> None:
        """Repeat the effects that failed a moment ago."""
        for effect, tries_left in self._retries.take_due(now_s):
            self._try(effect, tries_left=tries_left)

    def _carry_out_one(self, effect: Effect) -> None:
        match effect:
            case LaunchContainer():
                self._launch(effect.hosted)
            case ResizeContainer():
                self._resizer.submit(effect.hosted)
            case RemoveContainer():
                self.on_remove(effect.container, effect.incarnation)
                self._runtime.destroy(effect.container, effect.incarnation)
            case ConnectWorker():
                path = self._runtime.socket_path(effect.container, effect.incarnation)
                self._connections.connect(effect.container, effect.incarnation, path)
            case DisconnectWorker():
                self._connections.disconnect(effect.container, effect.incarnation)
            case DeliverOrder():
                self._connections.deliver(effect.container, effect.incarnation, effect.order)
            case QuitWorker():
                self._connections.quit(effect.container, effect.incarnation, effect.stop_timeout)
            case WriteLog():
                _LOG.info("event=%s subject=%s text=%r", effect.event, effect.subject, effect.text)

    def _launch(self, hosted: HostedContainer) -> None:
        unavailable = self._reservations.reserve(hosted.ports.values())
        if unavailable:
            self._events.append(
                PortsUnavailable(
                    container=hosted.container, incarnation=hosted.incarnation, ports=unavailable
                )
            )
            return
        uid, gid = (hosted.uid, hosted.uid) if hosted.uid else self._run_as
        plan = LaunchPlan(
            container=hosted.container,
            incarnation=hosted.incarnation,
            host=self._config.name,
            demand=hosted.order.demand,
            ports=hosted.ports,
            run_uid=uid,
            run_gid=gid,
        )
        self._runtime.launch(plan)

    def _on_launch_failed(self, hosted: HostedContainer, error: Exception) -> None:
        self._events.append(
            ContainerLaunchFailed(
                container=hosted.container,
                incarnation=hosted.incarnation,
                reason=Reason(code="launch", message=f"cannot make container {hosted.key}: {error}"),
            )
        )

    # ---- requests from other threads

    def begin_exec(self, pod: str, packet: Exec, files: tuple[int, ...], sink: ExecSink) -> None:
        """Ask an AppWorker to run a command, in its first task if none is named; in the loop's thread."""
        hosted = self._logic.ready(pod)
        if hosted is None:
            close_all(files)
            sink(None, [])
            return
        packet = packet if packet.task else replace(packet, task=hosted.order.demand.tasks[0].name)
        if not self._connections.begin_exec(hosted.container, hosted.incarnation, packet, files, sink):
            sink(None, [])

    def send_exec_packet(self, pod: str, packet: ToWorker) -> None:
        """Forward a packet of a running command; in the loop's thread."""
        hosted = self._logic.ready(pod)
        if hosted is not None:
            self._connections.send_exec_packet(hosted.container, hosted.incarnation, packet)

    def release_all(self, grace_s: float) -> None:
        """Begin to end every container; ``empty`` is set when none is left. Thread-safe."""
        self._inbox.put(ShutdownRequested(grace_s=grace_s))

    def stop_launcher(self, done: Callable[[GalaxyError | None], None]) -> None:
        """End the launcher and pass the error, if any, to ``done``; in the loop's thread."""
        try:
            self._runtime.stop_launcher()
        except GalaxyError as error:
            done(error)
        else:
            done(None)


def _ids(event: Launched | LaunchFailed | Ended | Destroyed) -> str:
    return f"container={event.container} incarnation={event.incarnation}"


def end_reason(event: Ended) -> Reason:
    """Return how PID 1 of a container ended."""
    if event.oom:
        return Reason(code="oom", message="the container's own memory limit killed PID 1")
    if event.status is None:
        return Reason(code="vanished", message="it ended unobserved; the cause is unknown")
    if event.status < 0:
        return Reason(code="signal", message=f"PID 1 was killed by signal {-event.status}")
    return Reason(code="exit", message=f"PID 1 ended with exit code {event.status}")
