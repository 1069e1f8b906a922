"""The agent's loop: one thread that hears everything, steps the logic, writes, and then acts."""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from galaxy.agent.config import AgentConfig
from galaxy.agent.connections.worker_connections import WorkerConnections
from galaxy.agent.disk_store import AgentStore
from galaxy.agent.host_ports import Reservations, sockets_seen
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
    WorkerReported,
)
from galaxy.agent.logic.records import HostedContainer, HostedPhase
from galaxy.agent.packages.cache import Packages
from galaxy.agent.report_publisher import ReportPublisher
from galaxy.agent.sessions.exec_session import Sink
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.protocol import Destroyed, Ended, Launched, LaunchFailed
from galaxy.container.runtime import Runtime, RuntimeEvent
from galaxy.errors import GalaxyError, HostError
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.worker import Exec, ToWorker

_LOG: Final = logging.getLogger(__name__)
COMMIT_RETRY_S: Final = 1.0
SELECT_S_MAX: Final = 600.0


class AgentLoop:
    """Ties logic, disk, launcher, AppWorkers and leaders together; everything in one thread.

    What is written comes before what is done: effects and reports of a step leave after its
    commit. While the disk refuses, events wait and are stepped again.
    """

    def __init__(
        self,
        config: AgentConfig,
        logic: AgentLogic,
        store: AgentStore,
        runtime: Runtime,
        packages: Packages,
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
        self._reservations = Reservations()
        self._selector = selectors.DefaultSelector()
        self._links = WorkerConnections(
            self._selector, packages, happened=self._happened, call_soon=inbox.call
        )
        self._events: list[Struct] = []
        self._commit_at_s = 0.0
        self._ending = False
        self.digests = (0, 0)
        self.trouble = ""
        """Why nothing is obeyed now: the disk refuses. Empty when all is well."""
        self.lives: dict[str, HostedPhase] = {}
        """Every life that is held; replaced as a whole, so other threads may look."""
        self.begun = threading.Event()
        self.empty = threading.Event()

    # ---- the thread

    def run(self) -> None:
        """Turn until ``end``; whatever it was that could not be, raises."""
        self._selector.register(self._runtime.fileno(), selectors.EVENT_READ, lambda _: None)
        self._selector.register(self._inbox.fileno(), selectors.EVENT_READ, lambda _: None)
        for port in self._logic.ports():
            self._reservations.take([port])
        self._hear_runtime()
        self._events.append(self._host_seen())
        self._rebooted = False
        while self._turn():
            self.begun.set()
            for key, mask in self._selector.select(self._timeout_s()):
                key.data(mask)

    def end(self) -> None:
        """Have ``run`` return; callable from any thread."""
        self._inbox.call(self._end)

    def _end(self) -> None:
        self._ending = True

    def close(self) -> None:
        """Let go of everything; after ``run`` has returned."""
        self._links.close()
        self._selector.close()
        self._reservations.close()

    def _timeout_s(self) -> float:
        # While the disk refuses, what the logic wants must wait for it.
        own_s = self._commit_at_s or self._logic.wake_s()
        wakes = (own_s, self._links.wake_s())
        first = min((wake for wake in wakes if wake is not None), default=None)
        return SELECT_S_MAX if first is None else max(0.0, min(first - time.monotonic(), SELECT_S_MAX))

    def _turn(self) -> bool:
        """Take in all there is, and return False when the end was said: nothing would wake a wait."""
        events, calls = self._inbox.take()
        self._events += events
        for call in calls:
            call()
        self._hear_runtime()
        self._links.turn()
        now_s = time.monotonic()
        if now_s >= self._commit_at_s:
            self._step(now_s)
        return not self._ending

    def _step(self, now_s: float) -> None:
        """Step until nothing is left to take in, writing before acting."""
        while True:
            batch, self._events = self._events, []
            if self._logic.needs_port_scan(batch):
                batch.insert(0, self._ports_seen())
            effects = self._logic.step(now_s, batch)
            changes = [change for table in self._logic.tables.values() for change in table.changes()]
            try:
                self._store.commit(changes)
            except HostError as error:
                self._refused(batch, error)
                return
            if self._commit_at_s:
                _LOG.info("event=agent.writable")
            self._commit_at_s, self.trouble = 0.0, ""
            for table in self._logic.tables.values():
                table.accept()
            if changes:
                self._changed()
            self._carry_out(effects)
            if not self._events:
                break
        for role, send in self._logic.flush(now_s).sends:
            self._publisher.publish(role, send)

    def _refused(self, batch: list[Struct], error: HostError) -> None:
        """Go back, keep what happened, and try again in a moment."""
        for table in self._logic.tables.values():
            table.discard()
        if not self._commit_at_s:
            _LOG.error("event=agent.unwritable cause=%r", str(error))
        self.trouble = f"{error.message}; {error.hint}" if error.hint else error.message
        self._events = compact([*batch, *self._events])
        self._commit_at_s = time.monotonic() + COMMIT_RETRY_S

    def _changed(self) -> None:
        self.digests = self._logic.digests()
        self.lives = {held.key: held.phase for held in self._logic.hosted_containers()}
        self._reservations.keep_only(self._logic.ports())
        if self.lives:
            self.empty.clear()
        else:
            self.empty.set()

    # ---- what happened

    def _happened(self, event: Struct) -> None:
        self._events.append(event)

    def _hear_runtime(self) -> None:
        for event in self._runtime.events():
            self._events.append(self._translate(event))

    def _translate(self, event: RuntimeEvent) -> Struct:
        match event:
            case Launched():
                return ContainerLaunched(
                    container=event.container, incarnation=event.incarnation, pid=event.pid
                )
            case LaunchFailed():
                return ContainerLaunchFailed(
                    container=event.container, incarnation=event.incarnation, reason=event.reason
                )
            case Ended():
                return ContainerEnded(
                    container=event.container, incarnation=event.incarnation, reason=why_ended(event)
                )
            case Destroyed():
                return ContainerDestroyed(container=event.container, incarnation=event.incarnation)
            case _:
                _LOG.warning("event=launcher.lost text='another one took over'")
                return self._host_seen()

    def _host_seen(self) -> HostInspected:
        living = (
            RunningContainer(container=one.container, incarnation=one.incarnation, pid=one.pid)
            for one in self._runtime.running()
        )
        return HostInspected(running=tuple(living), rebooted=self._rebooted)

    def _ports_seen(self) -> PortsScanned:
        listening, used = sockets_seen()
        others = self._reservations.others()
        return PortsScanned(listening=listening | others, used=used | others)

    # ---- what is owed

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case LaunchContainer():
                    self._launch(effect.hosted)
                case RemoveContainer():
                    self._runtime.destroy(effect.container, effect.incarnation)
                case ConnectWorker():
                    path = self._runtime.socket_path(effect.container, effect.incarnation)
                    self._links.connect(effect.container, effect.incarnation, path)
                case DisconnectWorker():
                    self._links.disconnect(effect.container, effect.incarnation)
                case DeliverOrder():
                    self._links.deliver(effect.container, effect.incarnation, effect.order)
                case QuitWorker():
                    self._links.quit(effect.container, effect.incarnation, effect.stop_timeout)
                case WriteLog():
                    _LOG.info("event=%s subject=%s text=%r", effect.event, effect.subject, effect.text)

    def _launch(self, held: HostedContainer) -> None:
        taken = self._reservations.take(held.ports.values())
        if taken:
            self._events.append(
                PortsUnavailable(container=held.container, incarnation=held.incarnation, ports=taken)
            )
            return
        uid, gid = (held.uid, held.uid) if held.uid else self._run_as
        plan = LaunchPlan(
            container=held.container,
            incarnation=held.incarnation,
            host=self._config.name,
            demand=held.order.demand,
            ports=held.ports,
            run_uid=uid,
            run_gid=gid,
        )
        try:
            self._runtime.launch(plan)
        except (GalaxyError, OSError) as error:
            reason = Reason(code="launch", message=str(error))
            self._events.append(
                ContainerLaunchFailed(container=held.container, incarnation=held.incarnation, reason=reason)
            )

    # ---- for other threads

    def begin_exec(self, pod: str, packet: Exec, files: tuple[int, ...], sink: Sink) -> None:
        """Ask an AppWorker to run a command, in its first task if none is named; in the loop's thread."""
        held = self._logic.ready(pod)
        if held is not None:
            packet = packet if packet.task else replace(packet, task=held.order.demand.tasks[0].name)
            if not self._links.begin_exec(held.container, held.incarnation, packet, files, sink):
                sink(None, [])
            return
        close_all(files)
        sink(None, [])

    def tell_exec(self, pod: str, packet: ToWorker) -> None:
        """Pass on a packet of a running command; in the loop's thread."""
        held = self._logic.ready(pod)
        if held is not None:
            self._links.exec_packet(held.container, held.incarnation, packet)

    def unwant_everything(self, grace_s: float) -> None:
        """Begin the end of every container; ``empty`` is set when it is reached."""
        self._inbox.put(ShutdownRequested(grace_s=grace_s))

    def stop_launcher(self, done: Callable[[GalaxyError | None], None]) -> None:
        """End the launcher and say how it went; in the loop's thread."""
        try:
            self._runtime.stop_launcher()
        except GalaxyError as error:
            done(error)
        else:
            done(None)


def why_ended(event: Ended) -> Reason:
    """Return how PID 1 of a container ended, in words."""
    if event.oom:
        return Reason(code="oom", message="the container's own memory limit killed PID 1")
    if event.status is None:
        return Reason(code="vanished", message="it ended while nobody watched")
    if event.status < 0:
        return Reason(code="signal", message=f"PID 1 was killed by signal {-event.status}")
    return Reason(code="exit", message=f"PID 1 ended with exit code {event.status}")


def compact(events: Sequence[Struct]) -> list[Struct]:
    """Keep events that wait for the disk bounded: of one AppWorker's reports only the last counts."""
    last: dict[str, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, WorkerReported):
            last[container_key(event.container, event.incarnation)] = index
    kept = []
    for index, event in enumerate(events):
        if isinstance(event, PortsScanned):
            continue
        if (
            isinstance(event, WorkerReported)
            and last[container_key(event.container, event.incarnation)] != index
        ):
            continue
        kept.append(event)
    return kept


def close_all(files: Sequence[int]) -> None:
    for fd in files:
        os.close(fd)
