"""Containers: ordered, launched, ended, destroyed; each life once, whatever order messages take."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import (
    ConnectWorker,
    DisconnectWorker,
    LaunchContainer,
    QuitWorker,
    RemoveContainer,
    WriteLog,
)
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerEvent,
    ContainerLaunched,
    ContainerLaunchFailed,
    HostInspected,
    LaunchRejected,
    PortsScanned,
    PortsUnavailable,
    ReleaseRequested,
    RunningContainer,
    Unblocked,
)
from galaxy.agent.logic.port_choice import choose_ports, choose_uid
from galaxy.agent.logic.records import HostedContainer, HostedPhase, container_key
from galaxy.agent.logic.state import HostState
from galaxy.agent.logic.transitions import TRANSITIONS
from galaxy.model.messages.container import ContainerOrders, CreateContainer, Reason
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.pod import PodState

QUIT_SLACK_S = 2.0
"""Beyond a pod's stop timeout, until its container is killed."""

EARLIER_LIFE_GRACE_S = 5.0
"""How long an earlier life may take to stop when a later one waits for its place."""

GRACE_S_MAX = 3600.0

STILL = frozenset({PodState.PENDING, PodState.STOPPED, PodState.FINISHED, PodState.FAILED})
"""States of a pod without programs: there is nobody to ask."""


class Containers:
    """The container half of the agent's logic, over a ``HostState``."""

    def __init__(self, state: HostState, *, ports: tuple[int, int], containers_max: int) -> None:
        self._state = state
        self._low, self._high = ports
        self._max = containers_max
        self._ports = PortsScanned(listening=frozenset(), used=frozenset())
        self._taken: set[int] = set()
        self.uids: tuple[int, int] | None = None
        """First and last uid for containers, if each has one of its own."""
        self.ending = False

    # ---- orders

    def orders(self, orders: ContainerOrders, now_s: float) -> None:
        """Obey ResMan, unless its epoch is over."""
        if not self._state.accepts_epoch(RESMAN, orders.epoch):
            return
        if orders.report:
            self._state.resman.mark_full()
        if (orders.create or orders.destroy) and self._state.is_expired(orders.until_s, now_s, RESMAN):
            return
        for destroy in orders.destroy:
            self._destroy(destroy.container, destroy.incarnation, now_s)
        for create in orders.create:
            self._create(create, now_s)

    def _create(self, order: CreateContainer, now_s: float) -> None:
        state, key = self._state, container_key(order.container, order.incarnation)
        lives = state.incarnations(order.container)
        if key in state.containers or order.incarnation <= state.destroyed_up_to(order.container):
            state.resman.mark(key)
            return
        if lives and lives[-1].incarnation > order.incarnation:
            state.resman.mark(key)
            state.resman.mark(lives[-1].key)
            return
        if self.ending or len(state.containers) >= 2 * self._max:
            state.effects.append(
                WriteLog(event="container.ignored", subject=key, text="this agent takes no more")
            )
            return
        state.record_destroyed(order.container, order.incarnation - 1)
        for earlier in lives:
            self._unwanted(earlier, now_s, EARLIER_LIFE_GRACE_S)
        state.put(HostedContainer(container=order.container, incarnation=order.incarnation, order=order))

    def _destroy(self, container: str, incarnation: int, now_s: float) -> None:
        state = self._state
        state.record_destroyed(container, incarnation)
        state.resman.mark(container_key(container, incarnation))
        for hosted in state.incarnations(container):
            if hosted.incarnation <= incarnation:
                self._unwanted(hosted, now_s)

    def everything_unwanted(self, grace_s: float, now_s: float) -> None:
        """Take nothing new, and end all that is hosted."""
        self.ending = True
        for key in tuple(self._state.containers):
            hosted = self._state.containers[key]
            self._state.record_destroyed(hosted.container, hosted.incarnation)
            self._unwanted(hosted, now_s, grace_s)

    def _grace(self, hosted: HostedContainer, most_s: float) -> float:
        """Return how long the programs of this life may take to stop; 0 when none runs."""
        order, pod = self._state.orders.get(hosted.container), self._state.pods.get(hosted.container)
        if hosted.phase is not HostedPhase.READY or hosted.key not in self._state.connected or order is None:
            return 0.0
        if pod is None or pod.incarnation != hosted.incarnation or pod.state in STILL:
            return 0.0
        return min(order.stop_timeout, most_s)

    def _unwanted(self, hosted: HostedContainer, now_s: float, most_s: float = GRACE_S_MAX) -> None:
        """Begin the end of a life; programs that run are asked to stop, for ``most_s`` at most."""
        state, grace_s = self._state, self._grace(hosted, most_s)
        phase = TRANSITIONS.next_state(hosted.phase, ReleaseRequested)
        if phase is None:
            if hosted.key in state.kill_deadlines_s:
                state.kill_deadlines_s[hosted.key] = min(
                    state.kill_deadlines_s[hosted.key], now_s + most_s + QUIT_SLACK_S
                )
            else:
                state.remove_from_host(hosted)
            state.resman.mark(hosted.key)
            return
        if phase is HostedPhase.GONE or hosted.clean:
            state.remove(hosted)
            return
        state.put(replace(hosted, phase=phase))
        if grace_s > 0:
            state.kill_deadlines_s[hosted.key] = now_s + grace_s + QUIT_SLACK_S
            state.effects.append(
                QuitWorker(container=hosted.container, incarnation=hosted.incarnation, stop_timeout=grace_s)
            )
            return
        self._disconnect(hosted)
        state.remove_from_host(hosted)

    # ---- what happened

    def happened(self, event: ContainerEvent) -> None:
        """Take in what the launcher says of one life."""
        state = self._state
        hosted = state.containers.get(container_key(event.container, event.incarnation))
        if hosted is None:
            if isinstance(event, ContainerLaunched):
                state.effects.append(
                    RemoveContainer(container=event.container, incarnation=event.incarnation)
                )
            return
        phase = TRANSITIONS.next_state(hosted.phase, type(event))
        if phase is None:
            return  # An echo: it changes nothing.
        if phase is HostedPhase.GONE:
            state.remove(hosted)
        elif phase is HostedPhase.DESTROYING:
            self._while_destroying(hosted, event)
        elif phase is HostedPhase.WAITING:
            self._taken |= set(event.ports) if isinstance(event, PortsUnavailable) else set()
            state.put(replace(hosted, phase=phase, ports={}))
        elif phase is HostedPhase.READY:
            self._ready(hosted, event.pid if isinstance(event, ContainerLaunched) else 0)
        else:
            self._ended(hosted, event)

    def _while_destroying(self, hosted: HostedContainer, event: ContainerEvent) -> None:
        # Not forgotten before its end is: a step that could not be committed is run again.
        if isinstance(event, ContainerEnded) and hosted.key in self._state.kill_deadlines_s:
            self._disconnect(hosted)
            self._state.remove_from_host(hosted)

    def _ready(self, hosted: HostedContainer, pid: int) -> None:
        self._state.pids[hosted.key] = pid
        self._state.put(replace(hosted, phase=HostedPhase.READY))
        self._state.effects.append(ConnectWorker(container=hosted.container, incarnation=hosted.incarnation))

    def _ended(self, hosted: HostedContainer, event: ContainerEvent) -> None:
        """PID 1 is gone: say so, remove what remains, and let its pod obey no order any more."""
        if isinstance(event, ContainerDestroyed):
            was_ended = hosted.phase is HostedPhase.ENDED
            reason = (
                hosted.reason if was_ended else Reason(code="vanished", message="it was removed under us")
            )
        else:
            assert isinstance(event, ContainerEnded | ContainerLaunchFailed)
            reason = event.reason
        self.end(hosted, reason, clean=isinstance(event, ContainerDestroyed))

    def end(self, hosted: HostedContainer, reason: Reason | None, *, clean: bool) -> None:
        state = self._state
        first = hosted.phase is not HostedPhase.ENDED
        state.put(replace(hosted, phase=HostedPhase.ENDED, reason=reason, clean=clean))
        if not clean:
            state.remove_from_host(hosted)
        if not first:
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

    # ---- wanted against found

    def host_seen(self, seen: HostInspected) -> None:
        """Bring the table and what really lives here together: re-adopt, tell, relaunch, remove."""
        state = self._state
        living = {container_key(one.container, one.incarnation): one for one in seen.running}
        for key in tuple(state.containers):
            self._compare(state.containers[key], living.pop(key, None), rebooted=seen.rebooted)
        for key in sorted(living):
            stray = living[key]
            state.effects.append(WriteLog(event="container.unknown", subject=key, text="is destroyed"))
            state.effects.append(RemoveContainer(container=stray.container, incarnation=stray.incarnation))
        state.resman.mark_full()
        state.appmaster.mark_full()

    def _compare(self, hosted: HostedContainer, there: RunningContainer | None, *, rebooted: bool) -> None:
        state = self._state
        ended = hosted.phase is HostedPhase.ENDED and (not hosted.clean or there is not None)
        if hosted.phase is HostedPhase.DESTROYING or ended:
            state.kill_deadlines_s.pop(hosted.key, None)
            state.remove_from_host(hosted)
        elif hosted.phase is HostedPhase.LAUNCHING and there is None:
            uid = self._uid_for(hosted)  # An agent before us may have had other uids, or none.
            if isinstance(uid, Reason):
                self.end(hosted, uid, clean=False)
            else:
                self._launch(replace(hosted, uid=uid))
        elif hosted.phase in (HostedPhase.LAUNCHING, HostedPhase.READY) and there is not None:
            self._ready(hosted, there.pid)
        elif hosted.phase is HostedPhase.READY:
            why = "its host was started anew" if rebooted else "it ended while nobody watched"
            self.end(hosted, Reason(code="vanished", message=why), clean=False)

    def settle(self, now_s: float) -> None:
        """Launch what nothing hinders any more, and kill what was asked to quit and did not."""
        state = self._state
        for key, deadline_s in tuple(state.kill_deadlines_s.items()):
            hosted = state.containers.get(key)
            if hosted is None:
                del state.kill_deadlines_s[key]
            elif deadline_s <= now_s:
                state.kill_deadlines_s[key] = now_s + QUIT_SLACK_S  # Again and again, until it is destroyed.
                self._disconnect(hosted)
                state.remove_from_host(hosted)
        for hosted in self.waiting():
            self._launch_if_clear(hosted)
        if not self.waiting():
            self._taken.clear()

    def waiting(self) -> tuple[HostedContainer, ...]:
        """Return the lives that something still hinders, lowest incarnation of each first."""
        rows = (
            self._state.containers[key] for key in self._state.containers.where("phase", HostedPhase.WAITING)
        )
        return tuple(sorted(rows, key=lambda hosted: (hosted.container, hosted.incarnation)))

    def ports_seen(self, seen: PortsScanned) -> None:
        self._ports = seen

    def _launch_if_clear(self, hosted: HostedContainer) -> None:
        state = self._state
        if state.containers.count("container", hosted.container) > 1:
            return
        idle = sum(
            state.containers.count("phase", phase) for phase in (HostedPhase.WAITING, HostedPhase.ENDED)
        )
        if len(state.containers) - idle >= self._max:
            counts = {"containers": len(state.containers) - idle, "containers_max": self._max}
            self._hindered(hosted, Reason(code="full", message="no more containers fit", counts=counts))
            return
        ports = self._ports_for(hosted)
        if isinstance(ports, Reason):
            self._hindered(hosted, ports)
            return
        uid = self._uid_for(hosted)
        if isinstance(uid, Reason):
            self._hindered(hosted, uid)
        elif ports is not None:
            phase = TRANSITIONS.next_state(hosted.phase, Unblocked)
            assert phase is not None
            self._launch(replace(hosted, phase=phase, ports=ports, uid=uid))

    def _launch(self, hosted: HostedContainer) -> None:
        self._state.put(hosted)
        self._state.effects.append(LaunchContainer(hosted=hosted))

    def _uid_for(self, hosted: HostedContainer) -> int | Reason:
        """Return a uid that no life here has or has left anything of; 0 where there are none to give."""
        if self.uids is None:
            return 0
        low, high = self.uids
        if low <= hosted.uid <= high:
            return hosted.uid
        others = {other.uid for other in self._state.containers.values() if other.uid and not other.clean}
        return choose_uid(hosted.key, low, high, others)

    def _ports_for(self, hosted: HostedContainer) -> dict[str, int] | Reason | None:
        """Return the ports of a life, why it gets none, or None: one is about to become free."""
        demands = hosted.order.demand.ports
        if not demands:
            return {}
        others = [other for other in self._state.containers.values() if other.ports and not other.clean]
        fixed = {demand.port for demand in demands if demand.port}
        leaving = {port for o in others if o.phase is HostedPhase.DESTROYING for port in o.ports.values()}
        if fixed & leaving:
            return None
        return choose_ports(
            demands,
            key=hosted.key,
            low=self._low,
            high=self._high,
            listening=self._ports.listening | self._taken,
            used=self._ports.used,
            assigned={port for other in others for port in other.ports.values()},
        )

    def _hindered(self, hosted: HostedContainer, reason: Reason) -> None:
        assert TRANSITIONS.next_state(hosted.phase, LaunchRejected) is HostedPhase.ENDED
        self.end(hosted, reason, clean=True)
