"""Containers: ordered, launched, ended, destroyed; each life once, whatever order messages take."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import (
    Connect,
    Disconnect,
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
    LaunchImpossible,
    PortsSeen,
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

    def __init__(self, memory: HostState, *, ports: tuple[int, int], containers_max: int) -> None:
        self._memory = memory
        self._low, self._high = ports
        self._max = containers_max
        self._ports = PortsSeen(listening=frozenset(), used=frozenset())
        self._taken: set[int] = set()
        self.uids: tuple[int, int] | None = None
        """First and last uid for containers, if each has one of its own."""
        self.ending = False

    # ---- orders

    def orders(self, orders: ContainerOrders, now_s: float) -> None:
        """Obey ResMan, unless its epoch is over."""
        if not self._memory.obeys(RESMAN, orders.epoch):
            return
        if orders.report:
            self._memory.resman.mark_full()
        if (orders.create or orders.destroy) and self._memory.is_void(orders.until_s, now_s, RESMAN):
            return
        for destroy in orders.destroy:
            self._destroy(destroy.container, destroy.incarnation, now_s)
        for create in orders.create:
            self._create(create, now_s)

    def _create(self, order: CreateContainer, now_s: float) -> None:
        memory, key = self._memory, container_key(order.container, order.incarnation)
        lives = memory.lives(order.container)
        if key in memory.held or order.incarnation <= memory.buried(order.container):
            memory.resman.mark(key)
            return
        if lives and lives[-1].incarnation > order.incarnation:
            memory.resman.mark(key)
            memory.resman.mark(lives[-1].key)
            return
        if self.ending or len(memory.held) >= 2 * self._max:
            memory.effects.append(
                WriteLog(event="container.ignored", subject=key, text="this agent takes no more")
            )
            return
        memory.bury(order.container, order.incarnation - 1)
        for earlier in lives:
            self._unwanted(earlier, now_s, EARLIER_LIFE_GRACE_S)
        memory.put(HostedContainer(container=order.container, incarnation=order.incarnation, order=order))

    def _destroy(self, container: str, incarnation: int, now_s: float) -> None:
        memory = self._memory
        memory.bury(container, incarnation)
        memory.resman.mark(container_key(container, incarnation))
        for held in memory.lives(container):
            if held.incarnation <= incarnation:
                self._unwanted(held, now_s)

    def everything_unwanted(self, grace_s: float, now_s: float) -> None:
        """Take nothing new, and end all that is held."""
        self.ending = True
        for key in tuple(self._memory.held):
            held = self._memory.held[key]
            self._memory.bury(held.container, held.incarnation)
            self._unwanted(held, now_s, grace_s)

    def _grace(self, held: HostedContainer, most_s: float) -> float:
        """Return how long the programs of this life may take to stop; 0 when none runs."""
        order, pod = self._memory.orders.get(held.container), self._memory.pods.get(held.container)
        if held.phase is not HostedPhase.READY or held.key not in self._memory.connected or order is None:
            return 0.0
        if pod is None or pod.incarnation != held.incarnation or pod.state in STILL:
            return 0.0
        return min(order.stop_timeout, most_s)

    def _unwanted(self, held: HostedContainer, now_s: float, most_s: float = GRACE_S_MAX) -> None:
        """Begin the end of a life; programs that run are asked to stop, for ``most_s`` at most."""
        memory, grace_s = self._memory, self._grace(held, most_s)
        phase = TRANSITIONS.next_state(held.phase, ReleaseRequested)
        if phase is None:
            if held.key in memory.quits:
                memory.quits[held.key] = min(memory.quits[held.key], now_s + most_s + QUIT_SLACK_S)
            else:
                memory.destroy(held)
            memory.resman.mark(held.key)
            return
        if phase is HostedPhase.GONE or held.clean:
            memory.forget(held)
            return
        memory.put(replace(held, phase=phase))
        if grace_s > 0:
            memory.quits[held.key] = now_s + grace_s + QUIT_SLACK_S
            memory.effects.append(
                QuitWorker(container=held.container, incarnation=held.incarnation, stop_timeout=grace_s)
            )
            return
        self._disconnect(held)
        memory.destroy(held)

    # ---- what happened

    def happened(self, event: ContainerEvent) -> None:
        """Take in what the launcher says of one life."""
        memory = self._memory
        held = memory.held.get(container_key(event.container, event.incarnation))
        if held is None:
            if isinstance(event, ContainerLaunched):
                memory.effects.append(
                    RemoveContainer(container=event.container, incarnation=event.incarnation)
                )
            return
        phase = TRANSITIONS.next_state(held.phase, type(event))
        if phase is None:
            return  # An echo: it changes nothing.
        if phase is HostedPhase.GONE:
            memory.forget(held)
        elif phase is HostedPhase.DESTROYING:
            self._while_destroying(held, event)
        elif phase is HostedPhase.WAITING:
            self._taken |= set(event.ports) if isinstance(event, PortsUnavailable) else set()
            memory.put(replace(held, phase=phase, ports={}))
        elif phase is HostedPhase.READY:
            self._ready(held, event.pid if isinstance(event, ContainerLaunched) else 0)
        else:
            self._ended(held, event)

    def _while_destroying(self, held: HostedContainer, event: ContainerEvent) -> None:
        # Not forgotten before its end is: a step that could not be committed is run again.
        if isinstance(event, ContainerEnded) and held.key in self._memory.quits:
            self._disconnect(held)
            self._memory.destroy(held)

    def _ready(self, held: HostedContainer, pid: int) -> None:
        self._memory.pids[held.key] = pid
        self._memory.put(replace(held, phase=HostedPhase.READY))
        self._memory.effects.append(Connect(container=held.container, incarnation=held.incarnation))

    def _ended(self, held: HostedContainer, event: ContainerEvent) -> None:
        """PID 1 is gone: say so, remove what remains, and let its pod obey no order any more."""
        if isinstance(event, ContainerDestroyed):
            was_ended = held.phase is HostedPhase.ENDED
            reason = held.reason if was_ended else Reason(code="vanished", message="it was removed under us")
        else:
            assert isinstance(event, ContainerEnded | ContainerLaunchFailed)
            reason = event.reason
        self.end(held, reason, clean=isinstance(event, ContainerDestroyed))

    def end(self, held: HostedContainer, reason: Reason | None, *, clean: bool) -> None:
        memory = self._memory
        first = held.phase is not HostedPhase.ENDED
        memory.put(replace(held, phase=HostedPhase.ENDED, reason=reason, clean=clean))
        if not clean:
            memory.destroy(held)
        if not first:
            return
        if held.phase is HostedPhase.READY:
            self._disconnect(held)
        memory.left(held.key)
        pod = memory.pods.get(held.container)
        if pod is None or pod.incarnation != held.incarnation:
            return
        if pod.state not in (PodState.FINISHED, PodState.FAILED):
            memory.pod_seen(
                replace(pod, generation=0, state=PodState.PENDING, healthy=False, tasks=(), pid=0)
            )

    def _disconnect(self, held: HostedContainer) -> None:
        self._memory.effects.append(Disconnect(container=held.container, incarnation=held.incarnation))

    # ---- wanted against found

    def host_seen(self, seen: HostInspected) -> None:
        """Bring the table and what really lives here together: re-adopt, tell, relaunch, remove."""
        memory = self._memory
        living = {container_key(one.container, one.incarnation): one for one in seen.living}
        for key in tuple(memory.held):
            self._compare(memory.held[key], living.pop(key, None), rebooted=seen.rebooted)
        for key in sorted(living):
            stray = living[key]
            memory.effects.append(WriteLog(event="container.unknown", subject=key, text="is destroyed"))
            memory.effects.append(RemoveContainer(container=stray.container, incarnation=stray.incarnation))
        memory.resman.mark_full()
        memory.appmaster.mark_full()

    def _compare(self, held: HostedContainer, there: RunningContainer | None, *, rebooted: bool) -> None:
        memory = self._memory
        ended = held.phase is HostedPhase.ENDED and (not held.clean or there is not None)
        if held.phase is HostedPhase.DESTROYING or ended:
            memory.quits.pop(held.key, None)
            memory.destroy(held)
        elif held.phase is HostedPhase.LAUNCHING and there is None:
            uid = self._uid_for(held)  # An agent before us may have had other uids, or none.
            if isinstance(uid, Reason):
                self.end(held, uid, clean=False)
            else:
                self._launch(replace(held, uid=uid))
        elif held.phase in (HostedPhase.LAUNCHING, HostedPhase.READY) and there is not None:
            self._ready(held, there.pid)
        elif held.phase is HostedPhase.READY:
            why = "its host was started anew" if rebooted else "it ended while nobody watched"
            self.end(held, Reason(code="vanished", message=why), clean=False)

    def settle(self, now_s: float) -> None:
        """Launch what nothing hinders any more, and kill what was asked to quit and did not."""
        memory = self._memory
        for key, deadline_s in tuple(memory.quits.items()):
            held = memory.held.get(key)
            if held is None:
                del memory.quits[key]
            elif deadline_s <= now_s:
                memory.quits[key] = now_s + QUIT_SLACK_S  # Again and again, until it is destroyed.
                self._disconnect(held)
                memory.destroy(held)
        for held in self.waiting():
            self._launch_if_clear(held)
        if not self.waiting():
            self._taken.clear()

    def waiting(self) -> tuple[HostedContainer, ...]:
        """Return the lives that something still hinders, lowest incarnation of each first."""
        rows = (self._memory.held[key] for key in self._memory.held.where("phase", HostedPhase.WAITING))
        return tuple(sorted(rows, key=lambda held: (held.container, held.incarnation)))

    def ports_seen(self, seen: PortsSeen) -> None:
        self._ports = seen

    def _launch_if_clear(self, held: HostedContainer) -> None:
        memory = self._memory
        if memory.held.count("container", held.container) > 1:
            return
        idle = sum(memory.held.count("phase", phase) for phase in (HostedPhase.WAITING, HostedPhase.ENDED))
        if len(memory.held) - idle >= self._max:
            counts = {"containers": len(memory.held) - idle, "containers_max": self._max}
            self._hindered(held, Reason(code="full", message="no more containers fit", counts=counts))
            return
        ports = self._ports_for(held)
        if isinstance(ports, Reason):
            self._hindered(held, ports)
            return
        uid = self._uid_for(held)
        if isinstance(uid, Reason):
            self._hindered(held, uid)
        elif ports is not None:
            phase = TRANSITIONS.next_state(held.phase, Unblocked)
            assert phase is not None
            self._launch(replace(held, phase=phase, ports=ports, uid=uid))

    def _launch(self, held: HostedContainer) -> None:
        self._memory.put(held)
        self._memory.effects.append(LaunchContainer(held=held))

    def _uid_for(self, held: HostedContainer) -> int | Reason:
        """Return a uid that no life here has or has left anything of; 0 where there are none to give."""
        if self.uids is None:
            return 0
        low, high = self.uids
        if low <= held.uid <= high:
            return held.uid
        others = {other.uid for other in self._memory.held.values() if other.uid and not other.clean}
        return choose_uid(held.key, low, high, others)

    def _ports_for(self, held: HostedContainer) -> dict[str, int] | Reason | None:
        """Return the ports of a life, why it gets none, or None: one is about to become free."""
        demands = held.order.demand.ports
        if not demands:
            return {}
        others = [other for other in self._memory.held.values() if other.ports and not other.clean]
        fixed = {demand.port for demand in demands if demand.port}
        leaving = {port for o in others if o.phase is HostedPhase.DESTROYING for port in o.ports.values()}
        if fixed & leaving:
            return None
        return choose_ports(
            demands,
            key=held.key,
            low=self._low,
            high=self._high,
            listening=self._ports.listening | self._taken,
            used=self._ports.used,
            held={port for other in others for port in other.ports.values()},
        )

    def _hindered(self, held: HostedContainer, reason: Reason) -> None:
        assert TRANSITIONS.next_state(held.phase, LaunchImpossible) is HostedPhase.ENDED
        self.end(held, reason, clean=True)
