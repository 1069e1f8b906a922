"""Containers: ordered, launched, ended, destroyed.

Each incarnation is launched at most once, in whatever order messages arrive.
"""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import (
    ConnectWorker,
    DisconnectWorker,
    LaunchContainer,
    QuitWorker,
    RemoveContainer,
    ResizeContainer,
    WriteLog,
)
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerEvent,
    ContainerLaunched,
    ContainerLaunchFailed,
    ContainerResized,
    HostInspected,
    LaunchRejected,
    PortsScanned,
    PortsUnavailable,
    ReleaseRequested,
    RunningContainer,
    Unblocked,
)
from galaxy.agent.logic.port_choice import choose_ports, choose_uid
from galaxy.agent.logic.records import HostedContainer, HostedPhase
from galaxy.agent.logic.state import HostState
from galaxy.agent.logic.transitions import TRANSITIONS
from galaxy.agent.logic.validity import problem_of
from galaxy.ids import container_key
from galaxy.model.messages.container import ContainerOrders, CreateContainer, Reason
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.pod import PodState
from galaxy.model.resources import NOTHING

QUIT_SLACK_S = 2.0
"""Time beyond a pod's stop timeout until its container is killed, and between repeated kills."""

REPLACED_GRACE_S = 5.0
"""Limit on the stop of an earlier incarnation while a later one waits."""

GRACE_S_MAX = 3600.0

_RESIZABLE = frozenset({HostedPhase.WAITING, HostedPhase.LAUNCHING, HostedPhase.READY})

WITHOUT_PROGRAMS = frozenset({PodState.PENDING, PodState.STOPPED, PodState.FINISHED, PodState.FAILED})
"""States of a pod that runs no program, so that there is nothing to stop gracefully."""


class Containers:
    """The container half of the agent's logic, over a ``HostState``."""

    def __init__(self, state: HostState, *, ports: tuple[int, int], containers_max: int) -> None:
        self._state = state
        self._port_low, self._port_high = ports
        self._containers_max = containers_max
        self._ports = PortsScanned(listening=frozenset(), used=frozenset())
        self._unavailable: set[int] = set()
        """Ports that launches found in use. Cleared when no container waits."""
        self.uids: tuple[int, int] | None = None
        """First and last uid for containers; None on hosts without separate uids for containers."""
        self.ending = False

    # ---- orders

    def on_orders(self, orders: ContainerOrders, now_s: float) -> None:
        """Apply ResMan's orders, unless their epoch is stale or they have expired."""
        if not self._state.accepts_epoch(RESMAN, orders.epoch):
            return
        if orders.report:
            self._state.resman.mark_full()
        if (orders.create or orders.destroy) and self._state.is_expired(orders.until_s, now_s, RESMAN):
            return
        for destroy in orders.destroy:
            if problem := problem_of(destroy):
                self._state.refuse(destroy.container, destroy.incarnation, problem)
            else:
                self._destroy(destroy.container, destroy.incarnation, now_s)
        for create in orders.create:
            if problem := problem_of(create):
                self._state.refuse(create.container, create.incarnation, problem)
            else:
                self._create(create, now_s)

    def release_all(self, grace_s: float, now_s: float) -> None:
        """Accept no new container and end all hosted ones."""
        self.ending = True
        for hosted in tuple(self._state.containers.values()):
            self._state.record_destroyed(hosted.container, hosted.incarnation)
            self._release(hosted, now_s, grace_s)

    def _create(self, order: CreateContainer, now_s: float) -> None:
        state, key = self._state, container_key(order.container, order.incarnation)
        incarnations = state.incarnations(order.container)
        if key in state.containers or order.incarnation <= state.destroyed_up_to(order.container):
            state.resman.mark(key)
            if key in state.containers:
                self._resize(state.containers[key], order)
            return
        if incarnations and incarnations[-1].incarnation > order.incarnation:
            state.resman.mark(key)
            state.resman.mark(incarnations[-1].key)
            return
        if self.ending or len(state.containers) >= 2 * self._containers_max:
            text = "this agent accepts no more containers"
            state.effects.append(WriteLog(event="container.ignored", subject=key, text=text))
            return
        state.record_destroyed(order.container, order.incarnation - 1)
        for earlier in incarnations:
            self._release(earlier, now_s, REPLACED_GRACE_S)
        hosted = HostedContainer(container=order.container, incarnation=order.incarnation, order=order)
        state.put(replace(hosted, sized=order.size))

    def _resize(self, hosted: HostedContainer, order: CreateContainer) -> None:
        """Give a container the size of ``order``, if that is a later one than its own.

        An order that is repeated while its limits are not in force makes the host try again.
        """
        if order.size < hosted.order.size or hosted.phase not in _RESIZABLE:
            return
        if order.size > hosted.order.size:
            old = hosted.order.demand
            if [task.name for task in old.tasks] != [task.name for task in order.demand.tasks]:
                text = f"size {order.size} has other tasks"
                self._state.effects.append(WriteLog(event="order.refused", subject=hosted.key, text=text))
                return
            demand = replace(old, tasks=order.demand.tasks)
            most = old.resources.largest(demand.resources).largest(hosted.resources)
            hosted = replace(
                hosted,
                order=replace(hosted.order, demand=demand, size=order.size),
                resize=None,
                resources=most,
            )
            self._state.put(hosted)
        if hosted.phase is HostedPhase.READY and hosted.sized != hosted.order.size:
            self._state.effects.append(ResizeContainer(hosted=hosted))

    def on_resized(self, event: ContainerResized) -> None:
        """Apply which limits are in force; the outcome of an earlier size changes nothing."""
        state = self._state
        hosted = state.containers.get(container_key(event.container, event.incarnation))
        if hosted is None or hosted.phase is not HostedPhase.READY or event.size != hosted.order.size:
            return
        if event.reason is None:
            state.put(replace(hosted, sized=event.size, resize=None, resources=NOTHING))
        elif hosted.sized != event.size:
            state.put(replace(hosted, resize=event.reason))

    def _destroy(self, container: str, incarnation: int, now_s: float) -> None:
        state = self._state
        state.record_destroyed(container, incarnation)
        state.resman.mark(container_key(container, incarnation))
        for hosted in state.incarnations(container):
            if hosted.incarnation <= incarnation:
                self._release(hosted, now_s)

    def _release(self, hosted: HostedContainer, now_s: float, grace_s_max: float = GRACE_S_MAX) -> None:
        """Begin to stop and remove an incarnation. Running programs get up to ``grace_s_max`` to stop."""
        state, grace_s = self._state, self._stop_grace_s(hosted, grace_s_max)
        phase = TRANSITIONS.next_state(hosted.phase, ReleaseRequested)
        if phase is None:
            deadline_s = state.kill_deadlines_s.get(hosted.key)
            if deadline_s is not None:
                state.kill_deadlines_s[hosted.key] = min(deadline_s, now_s + grace_s_max + QUIT_SLACK_S)
            else:
                state.request_removal(hosted)
            state.resman.mark(hosted.key)
            return
        if phase is HostedPhase.GONE or hosted.clean:
            state.drop_container(hosted)
            return
        state.put(replace(hosted, phase=phase))
        if grace_s > 0:
            state.kill_deadlines_s[hosted.key] = now_s + grace_s + QUIT_SLACK_S
            state.effects.append(
                QuitWorker(container=hosted.container, incarnation=hosted.incarnation, stop_timeout=grace_s)
            )
            return
        self._disconnect(hosted)
        state.request_removal(hosted)

    def _stop_grace_s(self, hosted: HostedContainer, grace_s_max: float) -> float:
        """Return how long the programs of this incarnation may take to stop; 0 when none runs."""
        order, pod = self._state.orders.get(hosted.container), self._state.pods.get(hosted.container)
        if hosted.phase is not HostedPhase.READY or hosted.key not in self._state.connected or order is None:
            return 0.0
        if pod is None or pod.incarnation != hosted.incarnation or pod.state in WITHOUT_PROGRAMS:
            return 0.0
        return min(order.stop_timeout, grace_s_max)

    # ---- events of the launcher

    def on_event(self, event: ContainerEvent) -> None:
        """Apply what the launcher reports about one incarnation; a stale event changes nothing."""
        state = self._state
        hosted = state.containers.get(container_key(event.container, event.incarnation))
        if hosted is None:
            if isinstance(event, ContainerLaunched):
                remove = RemoveContainer(container=event.container, incarnation=event.incarnation)
                state.effects.append(remove)
            return
        phase = TRANSITIONS.next_state(hosted.phase, type(event))
        if phase is None:
            return
        if phase is HostedPhase.GONE:
            state.drop_container(hosted)
        elif phase is HostedPhase.DESTROYING:
            self._on_event_while_destroying(hosted, event)
        elif phase is HostedPhase.WAITING:
            self._unavailable |= set(event.ports) if isinstance(event, PortsUnavailable) else set()
            state.put(replace(hosted, phase=phase, ports={}))
        elif phase is HostedPhase.READY:
            self._on_ready(hosted, event.pid if isinstance(event, ContainerLaunched) else 0)
        else:
            self._on_ended(hosted, event)

    def _on_event_while_destroying(self, hosted: HostedContainer, event: ContainerEvent) -> None:
        # The deadline stays until the container is gone: a step that could not be committed runs again.
        if isinstance(event, ContainerEnded) and hosted.key in self._state.kill_deadlines_s:
            self._disconnect(hosted)
            self._state.request_removal(hosted)

    def _on_ready(self, hosted: HostedContainer, pid: int) -> None:
        self._state.pids[hosted.key] = pid
        hosted = replace(hosted, phase=HostedPhase.READY)
        self._state.put(hosted)
        self._state.effects.append(ConnectWorker(container=hosted.container, incarnation=hosted.incarnation))
        if hosted.sized != hosted.order.size:  # It was ordered during the launch, or before a restart.
            self._state.effects.append(ResizeContainer(hosted=hosted))

    def _on_ended(self, hosted: HostedContainer, event: ContainerEvent) -> None:
        if isinstance(event, ContainerDestroyed):
            was_ended = hosted.phase is HostedPhase.ENDED
            removed = Reason(code="vanished", message="it was removed without an order")
            reason = hosted.reason if was_ended else removed
        else:
            assert isinstance(event, ContainerEnded | ContainerLaunchFailed)
            reason = event.reason
        self._end(hosted, reason, clean=isinstance(event, ContainerDestroyed))

    def _end(self, hosted: HostedContainer, reason: Reason | None, *, clean: bool) -> None:
        """Record that PID 1 is gone or never ran, remove what remains, and reset its pod to pending.

        A finished or failed pod keeps its state.
        """
        state = self._state
        was_ended = hosted.phase is HostedPhase.ENDED
        state.put(replace(hosted, phase=HostedPhase.ENDED, reason=reason, clean=clean))
        if not clean:
            state.request_removal(hosted)
        if was_ended:
            return
        if hosted.phase is HostedPhase.READY:
            self._disconnect(hosted)
        state.drop_volatile(hosted.key)
        pod = state.pods.get(hosted.container)
        if pod is None or pod.incarnation != hosted.incarnation:
            return
        if pod.state not in (PodState.FINISHED, PodState.FAILED):
            state.record_pod(
                replace(pod, generation=0, state=PodState.PENDING, healthy=False, tasks=(), pid=0)
            )

    def _disconnect(self, hosted: HostedContainer) -> None:
        self._state.effects.append(
            DisconnectWorker(container=hosted.container, incarnation=hosted.incarnation)
        )

    # ---- desired against observed

    def on_host_inspected(self, inspected: HostInspected) -> None:
        """Reconcile the table with what runs on the host: adopt, report, launch again, or remove."""
        state = self._state
        running = {container_key(one.container, one.incarnation): one for one in inspected.running}
        for key in tuple(state.containers):
            self._reconcile(state.containers[key], running.pop(key, None), rebooted=inspected.rebooted)
        for key in sorted(running):
            stray = running[key]
            state.effects.append(WriteLog(event="container.unknown", subject=key, text="is destroyed"))
            state.effects.append(RemoveContainer(container=stray.container, incarnation=stray.incarnation))
        state.resman.mark_full()
        state.appmaster.mark_full()

    def _reconcile(
        self, hosted: HostedContainer, running: RunningContainer | None, *, rebooted: bool
    ) -> None:
        state = self._state
        if hosted.phase is HostedPhase.LAUNCHING and hosted.order.size:
            hosted = replace(hosted, sized=-1)  # The launcher may have launched it with an earlier size.
        ended = hosted.phase is HostedPhase.ENDED and (not hosted.clean or running is not None)
        if hosted.phase is HostedPhase.DESTROYING or ended:
            state.kill_deadlines_s.pop(hosted.key, None)
            state.request_removal(hosted)
        elif hosted.phase is HostedPhase.LAUNCHING and running is None:
            uid = self._uid_for(hosted)  # The previous agent may have had another uid range, or none.
            if isinstance(uid, Reason):
                self._end(hosted, uid, clean=False)
            else:
                self._launch(replace(hosted, uid=uid))
        elif hosted.phase in (HostedPhase.LAUNCHING, HostedPhase.READY) and running is not None:
            self._on_ready(hosted, running.pid)
        elif hosted.phase is HostedPhase.READY:
            why = "its host was rebooted" if rebooted else "it ended unobserved; the cause is unknown"
            self._end(hosted, Reason(code="vanished", message=why), clean=False)

    # ---- launches and kills that are due

    def advance(self, now_s: float) -> None:
        """Launch the containers that are no longer blocked; kill those past their deadline."""
        state = self._state
        for key, deadline_s in tuple(state.kill_deadlines_s.items()):
            hosted = state.containers.get(key)
            if hosted is None:
                del state.kill_deadlines_s[key]
            elif deadline_s <= now_s:
                state.kill_deadlines_s[key] = now_s + QUIT_SLACK_S  # Repeated until it is gone.
                self._disconnect(hosted)
                state.request_removal(hosted)
        for hosted in self.waiting():
            self._launch_if_unblocked(hosted)
        if not self.waiting():
            self._unavailable.clear()

    def waiting(self) -> tuple[HostedContainer, ...]:
        """Return the incarnations that are blocked, lowest of each container first."""
        containers = self._state.containers
        rows = (containers[key] for key in containers.where("phase", HostedPhase.WAITING))
        return tuple(sorted(rows, key=lambda hosted: (hosted.container, hosted.incarnation)))

    def on_ports_scanned(self, scanned: PortsScanned) -> None:
        self._ports = scanned

    def _launch_if_unblocked(self, hosted: HostedContainer) -> None:
        containers = self._state.containers
        if containers.count("container", hosted.container) > 1:
            return
        without_process = (HostedPhase.WAITING, HostedPhase.ENDED)
        active = len(containers) - sum(containers.count("phase", phase) for phase in without_process)
        if active >= self._containers_max:
            counts = {"containers": active, "containers_max": self._containers_max}
            self._reject(hosted, Reason(code="full", message="no more containers fit", counts=counts))
            return
        ports = self._ports_for(hosted)
        if isinstance(ports, Reason):
            self._reject(hosted, ports)
            return
        uid = self._uid_for(hosted)
        if isinstance(uid, Reason):
            self._reject(hosted, uid)
        elif ports is not None:
            phase = TRANSITIONS.next_state(hosted.phase, Unblocked)
            assert phase is not None
            self._launch(replace(hosted, phase=phase, ports=ports, uid=uid, sized=hosted.order.size))

    def _launch(self, hosted: HostedContainer) -> None:
        self._state.put(hosted)
        self._state.effects.append(LaunchContainer(hosted=hosted))

    def _reject(self, hosted: HostedContainer, reason: Reason) -> None:
        assert TRANSITIONS.next_state(hosted.phase, LaunchRejected) is HostedPhase.ENDED
        self._end(hosted, reason, clean=True)

    def _uid_for(self, hosted: HostedContainer) -> int | Reason:
        """Return a uid that no container on this host has, even an ended one; 0 without a uid range."""
        if self.uids is None:
            return 0
        low, high = self.uids
        if low <= hosted.uid <= high:
            return hosted.uid
        rows = self._state.containers.values()
        return choose_uid(hosted.key, low, high, {row.uid for row in rows if row.uid and not row.clean})

    def _ports_for(self, hosted: HostedContainer) -> dict[str, int] | Reason | None:
        """Return the ports for an incarnation, or why it gets none; None while a fixed one is being freed."""
        demands = hosted.order.demand.ports
        if not demands:
            return {}
        others = [row for row in self._state.containers.values() if row.ports and not row.clean]
        fixed = {demand.port for demand in demands if demand.port}
        leaving = [row for row in others if row.phase is HostedPhase.DESTROYING]
        if fixed & {port for row in leaving for port in row.ports.values()}:
            return None
        return choose_ports(
            demands,
            key=hosted.key,
            low=self._port_low,
            high=self._port_high,
            listening=self._ports.listening | self._unavailable,
            used=self._ports.used,
            assigned={port for row in others for port in row.ports.values()},
        )
