"""Pods: orders on their way to AppWorkers, and what AppWorkers say."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import Deliver, WriteLog
from galaxy.agent.logic.events import WorkerReported
from galaxy.agent.logic.records import HostedPhase, container_key
from galaxy.agent.logic.state import HostState
from galaxy.model.messages.names import APPMASTER
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodOrders, PodState, without_values

FRESH_S_MAX = 25.0
"""How long an order without an end of its own may wait for its AppWorker."""


class Pods:
    """The pod half of the agent's logic, over a ``HostState``."""

    def __init__(self, memory: HostState) -> None:
        self._memory = memory

    def orders(self, orders: PodOrders, now_s: float) -> None:
        """Obey AppMaster, unless its epoch is over."""
        if not self._memory.obeys(APPMASTER, orders.epoch):
            return
        if orders.report:
            self._memory.appmaster.mark_full()
        if orders.orders and self._memory.is_void(orders.until_s, now_s, APPMASTER):
            return
        until_s = now_s + FRESH_S_MAX
        if orders.until_s and self._memory.redis_ahead_s is not None:
            until_s = orders.until_s - self._memory.redis_ahead_s
        for order in orders.orders:
            self._order(order, now_s, until_s)
        self._memory.trim_orders()

    def _order(self, order: PodOrder, now_s: float, until_s: float) -> None:
        memory = self._memory
        memory.appmaster.mark(order.pod)
        if (
            order.incarnation <= memory.buried(order.pod)
            and container_key(order.pod, order.incarnation) not in memory.held
        ):
            return
        there = memory.orders.get(order.pod)
        lived, asked = (order.incarnation, order.generation), (0, 0)
        if there is not None:
            asked = there.incarnation, there.generation
        if asked > lived or self._is_finished(order):
            return
        memory.fresh[order.pod] = until_s
        memory.whole[order.pod] = order
        if asked < lived:
            memory.orders.put(order.pod, without_values(order))
        elif self._is_obeyed(order):
            return
        self.deliver(order.pod, order.incarnation, now_s)

    def _is_obeyed(self, order: PodOrder) -> bool:
        there = self._memory.pods.get(order.pod)
        return there is not None and (there.incarnation, there.generation) >= (
            order.incarnation,
            order.generation,
        )

    def _is_finished(self, order: PodOrder) -> bool:
        """Answer an order for a batch pod that is done with its end; it never runs again.

        Only an order to deploy it anew, newer than the one it finished, makes it run.
        """
        memory = self._memory
        done = memory.finished.get(order.pod)
        if done is None:
            return False
        if order.redeploy and order.generation > done.pod.generation:
            memory.finished.drop(order.pod)
            return False
        there = memory.pods.get(order.pod)
        if there is None or (there.incarnation, there.generation) < (order.incarnation, order.generation):
            memory.pod_seen(replace(done.pod, incarnation=order.incarnation, generation=order.generation))
        return True

    def deliver(self, pod: str, incarnation: int, now_s: float) -> None:
        """Hand the newest order to this life's AppWorker, if both are there and the order still counts.

        An order that a restart found on disk is not handed over: AppMaster sends it again if it counts.
        """
        memory, key = self._memory, container_key(pod, incarnation)
        order, held = memory.whole.get(pod), memory.held.get(key)
        if order is None or order.incarnation != incarnation or pod in memory.finished:
            return
        if memory.fresh.get(pod, now_s - 1) < now_s:
            return
        if held is not None and held.phase is HostedPhase.READY and key in memory.connected:
            memory.effects.append(Deliver(container=pod, incarnation=incarnation, order=order))

    def connected(self, pod: str, incarnation: int, now_s: float) -> None:
        self._memory.connected.add(container_key(pod, incarnation))
        self.deliver(pod, incarnation, now_s)

    def lost(self, pod: str, incarnation: int) -> None:
        self._memory.connected.discard(container_key(pod, incarnation))

    def reported(self, event: WorkerReported) -> None:
        """Believe an AppWorker about its own pod, and about nothing else."""
        memory, pod = self._memory, event.pod
        held = memory.held.get(container_key(event.container, event.incarnation))
        if held is None or held.phase not in (HostedPhase.READY, HostedPhase.DESTROYING):
            return
        if (pod.pod, pod.incarnation) != (event.container, event.incarnation):
            text = f"says it is {pod.pod} incarnation {pod.incarnation}"
            memory.effects.append(WriteLog(event="worker.lies", subject=held.key, text=text))
            return
        there, done = memory.pods.get(pod.pod), memory.finished.get(pod.pod)
        if there is not None and there.incarnation > pod.incarnation:
            return
        if done is not None and pod.state is not PodState.FINISHED:
            return
        if done is not None and there is not None:
            pod = replace(pod, generation=max(pod.generation, there.generation))
        memory.pod_seen(replace(pod, pid=memory.pid_of(pod), ports=held.ports, cpu_milli=0, memory_bytes=0))

    def found(self, pod: str) -> ObservedPod | None:
        """Return a pod as reports tell it: with the last usage sample of its container."""
        row = self._memory.pods.get(pod)
        if row is None:
            return None
        key = container_key(row.pod, row.incarnation)
        cpu_milli, memory_bytes = self._memory.usage.get(key, (0, 0))
        pid = self._memory.pids.get(key, 0)
        return replace(row, pid=pid, cpu_milli=cpu_milli, memory_bytes=memory_bytes)
