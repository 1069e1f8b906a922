"""One agent's logic: events in, tables changed, effects and reports out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from galaxy.agent.logic.containers import Containers
from galaxy.agent.logic.effects import DueReports, Effect, WriteLog
from galaxy.agent.logic.events import (
    ContainerEvent,
    ContainerResized,
    HostInspected,
    PortsScanned,
    RedisClockRead,
    ReportPublished,
    ShutdownRequested,
    UsageMeasured,
    WorkerConnected,
    WorkerLost,
    WorkerReported,
)
from galaxy.agent.logic.pods import Pods
from galaxy.agent.logic.records import OBSERVED_STATES, HostedContainer, HostedPhase
from galaxy.agent.logic.reports import DueReport, Outbox
from galaxy.agent.logic.state import HostState
from galaxy.ids import container_key, parse_container_key
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentReport
from galaxy.model.messages.container import ContainerOrders, ObservedContainer, ObservedContainerState
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.messages.pod import ObservedPod, PodOrders
from galaxy.model.stored.table import Table

LIMITS: Final = ("cpu", "memory", "pids", "disk")
"""The limits of a job file that pods report as not enforced if their host cannot enforce them."""


class AgentLogic:
    """Decides what an agent does on orders and events.

    The shell loads ``tables`` and calls ``resume``. For every batch of events it calls ``step``,
    commits what changed in the tables, and only then carries the effects out and publishes what
    ``flush`` returns. If the commit fails it discards the changes and steps the batch again
    later. ``now_s`` is a monotonic clock, in seconds.
    """

    def __init__(self, info: AgentInfo, state: HostState | None = None) -> None:
        self.info = info
        self._state = state or HostState()
        ports = (info.ports_low, info.ports_high)
        self._containers = Containers(self._state, ports=ports, containers_max=info.containers)
        self._pods = Pods(self._state)
        self._serial = 0

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self._state.tables

    def set_uid_range(self, low: int, high: int) -> None:
        """Give every container that is launched from now on its own uid, from ``low`` to ``high``."""
        self._containers.uids = low, high

    def resume(self) -> None:
        """Continue from tables that have just been read from disk."""
        self._state.resume()

    def step(self, now_s: float, events: Sequence[Struct]) -> tuple[Effect, ...]:
        """Apply ``events`` in order; return the effects to carry out once the tables are committed."""
        self._state.effects = []
        for event in events:
            self._apply(event, now_s)
        self._containers.advance(now_s)
        return tuple(self._state.effects)

    def _apply(self, event: Struct, now_s: float) -> None:
        state = self._state
        match event:
            case ContainerOrders() | PodOrders() if event.agent != self.info.agent:
                note = WriteLog(event="order.misrouted", subject=event.agent, text="is not this agent")
                state.effects.append(note)
            case ContainerOrders():
                self._containers.on_orders(event, now_s)
            case PodOrders():
                self._pods.on_orders(event, now_s)
            case WorkerReported():
                self._pods.on_reported(event)
            case WorkerConnected():
                self._pods.on_connected(event.container, event.incarnation, now_s)
            case WorkerLost():
                self._pods.on_lost(event.container, event.incarnation)
            case UsageMeasured():
                key = container_key(event.container, event.incarnation)
                state.usage[key] = (event.cpu_milli, event.memory_bytes)
            case RedisClockRead():
                state.redis_ahead_s = event.redis_s - now_s
            case ContainerResized():
                self._containers.on_resized(event)
            case PortsScanned():
                self._containers.on_ports_scanned(event)
            case HostInspected():
                self._containers.on_host_inspected(event)
            case ReportPublished():
                self._outbox(event.role).on_published(now_s, ok=event.ok, unread=event.unread)
            case ShutdownRequested():
                self._containers.release_all(event.grace_s, now_s)
            case _:
                assert isinstance(event, ContainerEvent)
                self._containers.on_event(event)

    # ---- queries for the shell

    def needs_port_scan(self, events: Iterable[Struct]) -> bool:
        """Return whether this batch may choose ports, so that ``PortsScanned`` has to precede it."""
        waiting = any(hosted.order.demand.ports for hosted in self._containers.waiting())
        ordered = any(
            create.demand.ports
            for event in events
            if isinstance(event, ContainerOrders)
            for create in event.create
        )
        return waiting or ordered

    def wake_s(self) -> float | None:
        """Return when to call ``step`` and ``flush`` again even if nothing happens."""
        times = [self._state.resman.wake_s(), self._state.appmaster.wake_s()]
        times += self._state.kill_deadlines_s.values()
        return min((time for time in times if time is not None), default=None)

    def digests(self) -> tuple[int, int]:
        """Return the digests of ready containers and of pods."""
        return self._state.digests()

    def hosted_containers(self) -> tuple[HostedContainer, ...]:
        return tuple(self._state.containers.values())

    def ready(self, pod: str) -> HostedContainer | None:
        """Return the incarnation of a container that is ready, if one is."""
        incarnations = self._state.incarnations(pod)
        return next((hosted for hosted in incarnations if hosted.phase is HostedPhase.READY), None)

    def ports(self) -> frozenset[int]:
        """Return every port that belongs to a container on this host."""
        rows = (hosted for hosted in self._state.containers.values() if not hosted.clean)
        return frozenset(port for hosted in rows for port in hosted.ports.values())

    # ---- reports

    def flush(self, now_s: float) -> DueReports:
        """Return the reports that are due; each is pending until ``ReportPublished``."""
        reports = []
        for role in (RESMAN, APPMASTER):
            due_s = self._outbox(role).wake_s()
            if due_s is not None and due_s <= now_s:
                due = self._report(role, now_s)
                if due is not None:
                    reports.append(due)
        return DueReports(reports=tuple(reports), wake_s=self.wake_s())

    def _outbox(self, role: str) -> Outbox:
        return self._state.resman if role == RESMAN else self._state.appmaster

    def _report(self, role: str, now_s: float) -> DueReport | None:
        outbox = self._outbox(role)
        full, keys, replaces = outbox.take(now_s)
        containers: tuple[ObservedContainer, ...] = ()
        pods: tuple[ObservedPod, ...] = ()
        if role == RESMAN:
            reported = (self._observed(key) for key in (self._state.containers if full else keys))
            containers = tuple(container for container in reported if container is not None)
        else:
            observed = (self._observed_pod(pod) for pod in (self._state.pods if full else keys))
            pods = tuple(pod for pod in observed if pod is not None)
        if not full and not containers and not pods:
            outbox.drop()
            return None
        self._serial += 1
        accepted = self._state.epochs.get(role)
        report = AgentReport(
            agent=self.info.agent,
            boot=self.info.boot,
            serial=self._serial,
            epoch=0 if accepted is None else accepted.epoch,
            full=full,
            info=self.info if full else None,
            containers=containers,
            pods=pods,
        )
        return DueReport(role=role, report=report, replaces=replaces)

    def _observed_pod(self, pod: str) -> ObservedPod | None:
        """Return a pod as it is reported: with its usage, and what its host does not enforce."""
        observed = self._pods.observed(pod)
        missing = tuple(limit for limit in LIMITS if limit not in self.info.enforced)
        return replace(observed, not_enforced=missing) if observed is not None and missing else observed

    def _observed(self, key: str) -> ObservedContainer | None:
        """Return how a container is reported; None for a key of a malformed order."""
        hosted = self._state.containers.get(key)
        if hosted is None and key in self._state.refused:
            return self._state.refused[key]
        if hosted is None:
            parsed = parse_container_key(key)
            if parsed is None:
                return None
            container, incarnation = parsed
            return ObservedContainer(
                container=container, incarnation=incarnation, state=ObservedContainerState.GONE
            )
        demand = hosted.order.demand
        return ObservedContainer(
            container=hosted.container,
            incarnation=hosted.incarnation,
            state=OBSERVED_STATES[hosted.phase],
            ports=hosted.ports,
            reason=hosted.reason,
            resources=demand.resources.largest(hosted.resources),
            size=max(0, hosted.sized),
            resize=hosted.resize,
        )
