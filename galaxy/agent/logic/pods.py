"""Pods: orders on their way to AppWorkers, and what AppWorkers say."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import DeliverOrder, WriteLog
from galaxy.agent.logic.events import WorkerReported
from galaxy.agent.logic.records import HostedPhase, container_key
from galaxy.agent.logic.state import HostState
from galaxy.model.messages.names import APPMASTER
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodOrders, PodState, without_values


class Pods:
    """The pod half of the agent's logic, over a ``HostState``."""

    def __init__(self, state: HostState) -> None:
        self._state = state

    def orders(self, orders: PodOrders, now_s: float) -> None:
        """Obey AppMaster, unless its epoch is over."""
        if not self._state.accepts_epoch(APPMASTER, orders.epoch):
            return
        if orders.report:
            self._state.appmaster.mark_full()
        if orders.orders and self._state.is_expired(orders.until_s, now_s, APPMASTER):
            return
        until_s = orders.until_s - (self._state.redis_ahead_s or 0.0)
        for order in orders.orders:
            self._order(order, now_s, until_s)
        self._state.trim_orders()

    def _order(self, order: PodOrder, now_s: float, until_s: float) -> None:
        state = self._state
        state.appmaster.mark(order.pod)
        if (
            order.incarnation <= state.destroyed_up_to(order.pod)
            and container_key(order.pod, order.incarnation) not in state.containers
        ):
            return
        there = state.orders.get(order.pod)
        lived, asked = (order.incarnation, order.generation), (0, 0)
        if there is not None:
            asked = there.incarnation, there.generation
        if asked > lived or self._is_finished(order):
            return
        state.order_expiry_s[order.pod] = until_s
        state.full_orders[order.pod] = order
        if asked < lived:
            state.orders.put(order.pod, without_values(order))
        elif self._is_obeyed(order):
            return
        self.deliver(order.pod, order.incarnation, now_s)

    def _is_obeyed(self, order: PodOrder) -> bool:
        there = self._state.pods.get(order.pod)
        return there is not None and (there.incarnation, there.generation) >= (
            order.incarnation,
            order.generation,
        )

    def _is_finished(self, order: PodOrder) -> bool:
        """Answer an order for a batch pod that is done with its end; it never runs again.

        Only an order to deploy it anew, newer than the one it finished, makes it run.
        """
        state = self._state
        done = state.finished.get(order.pod)
        if done is None:
            return False
        if order.redeploy and order.generation > done.pod.generation:
            state.finished.drop(order.pod)
            return False
        there = state.pods.get(order.pod)
        if there is None or (there.incarnation, there.generation) < (order.incarnation, order.generation):
            state.record_pod(replace(done.pod, incarnation=order.incarnation, generation=order.generation))
        return True

    def deliver(self, pod: str, incarnation: int, now_s: float) -> None:
        """Hand the newest order to this life's AppWorker, if both are there and the order still counts.

        An order that a restart found on disk is not handed over: AppMaster sends it again if it counts.
        """
        state, key = self._state, container_key(pod, incarnation)
        order, hosted = state.full_orders.get(pod), state.containers.get(key)
        if order is None or order.incarnation != incarnation or pod in state.finished:
            return
        if state.order_expiry_s.get(pod, now_s - 1) < now_s:
            return
        if hosted is not None and hosted.phase is HostedPhase.READY and key in state.connected:
            state.effects.append(DeliverOrder(container=pod, incarnation=incarnation, order=order))

    def connected(self, pod: str, incarnation: int, now_s: float) -> None:
        self._state.connected.add(container_key(pod, incarnation))
        self.deliver(pod, incarnation, now_s)

    def lost(self, pod: str, incarnation: int) -> None:
        self._state.connected.discard(container_key(pod, incarnation))

    def reported(self, event: WorkerReported) -> None:
        """Believe an AppWorker about its own pod, and about nothing else."""
        state, pod = self._state, event.pod
        hosted = state.containers.get(container_key(event.container, event.incarnation))
        if hosted is None or hosted.phase not in (HostedPhase.READY, HostedPhase.DESTROYING):
            return
        if (pod.pod, pod.incarnation) != (event.container, event.incarnation):
            text = f"says it is {pod.pod} incarnation {pod.incarnation}"
            state.effects.append(WriteLog(event="worker.lies", subject=hosted.key, text=text))
            return
        there, done = state.pods.get(pod.pod), state.finished.get(pod.pod)
        if there is not None and there.incarnation > pod.incarnation:
            return
        if done is not None and pod.state is not PodState.FINISHED:
            return
        if done is not None and there is not None:
            pod = replace(pod, generation=max(pod.generation, there.generation))
        state.record_pod(replace(pod, pid=state.pid_of(pod), ports=hosted.ports, cpu_milli=0, memory_bytes=0))

    def found(self, pod: str) -> ObservedPod | None:
        """Return a pod as reports tell it: with the last usage sample of its container."""
        row = self._state.pods.get(pod)
        if row is None:
            return None
        key = container_key(row.pod, row.incarnation)
        cpu_milli, memory_bytes = self._state.usage.get(key, (0, 0))
        pid = self._state.pids.get(key, 0)
        return replace(row, pid=pid, cpu_milli=cpu_milli, memory_bytes=memory_bytes)
