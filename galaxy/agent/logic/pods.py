"""Pods: orders to deliver to AppWorkers, and what AppWorkers report."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import DeliverOrder, WriteLog
from galaxy.agent.logic.events import WorkerReported
from galaxy.agent.logic.records import HostedPhase
from galaxy.agent.logic.state import HostState
from galaxy.agent.logic.validity import problem_of
from galaxy.ids import container_key
from galaxy.model.messages.names import APPMASTER
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodOrders, PodState, without_values


class Pods:
    """The pod half of the agent's logic, over a ``HostState``."""

    def __init__(self, state: HostState) -> None:
        self._state = state

    # ---- orders

    def on_orders(self, orders: PodOrders, now_s: float) -> None:
        """Apply AppMaster's orders, unless their epoch is stale or they have expired."""
        if not self._state.accepts_epoch(APPMASTER, orders.epoch):
            return
        if orders.report:
            self._state.appmaster.mark_full()
        if orders.orders and self._state.is_expired(orders.until_s, now_s, APPMASTER):
            return
        expiry_s = orders.until_s - (self._state.redis_ahead_s or 0.0)
        for order in orders.orders:
            if problem := problem_of(order):
                text = f"an order of generation {order.generation}: {problem}"
                self._state.effects.append(WriteLog(event="order.refused", subject=order.pod, text=text))
                self._state.appmaster.mark(order.pod)  # What runs is reported as it is.
            else:
                self._on_order(order, now_s, expiry_s)
        self._state.trim_orders()

    def _on_order(self, order: PodOrder, now_s: float, expiry_s: float) -> None:
        state = self._state
        state.appmaster.mark(order.pod)
        hosted_here = container_key(order.pod, order.incarnation) in state.containers
        if order.incarnation <= state.destroyed_up_to(order.pod) and not hosted_here:
            return
        last = state.orders.get(order.pod)
        last_version = (0, 0) if last is None else (last.incarnation, last.generation)
        version = order.incarnation, order.generation
        if last_version > version or self._is_finished(order):
            return
        state.order_expiry_s[order.pod] = expiry_s
        state.full_orders[order.pod] = order
        if last_version < version:
            state.orders.put(order.pod, without_values(order))
        elif self._is_obeyed(order):
            return
        self._deliver(order.pod, order.incarnation, now_s)

    def _is_obeyed(self, order: PodOrder) -> bool:
        pod = self._state.pods.get(order.pod)
        return pod is not None and (pod.incarnation, pod.generation) >= (order.incarnation, order.generation)

    def _is_finished(self, order: PodOrder) -> bool:
        """Return whether ``order`` is for a finished batch pod, and report that end if so.

        Such a pod never runs again, unless the order is to redeploy it and is newer than the one
        that the pod finished.
        """
        state = self._state
        finished = state.finished.get(order.pod)
        if finished is None:
            return False
        if order.redeploy and order.generation > finished.pod.generation:
            state.finished.drop(order.pod)
            return False
        if not self._is_obeyed(order):
            pod = replace(finished.pod, incarnation=order.incarnation, generation=order.generation)
            state.record_pod(pod)
        return True

    def _deliver(self, pod: str, incarnation: int, now_s: float) -> None:
        """Send the newest order to this incarnation's AppWorker, if it is connected.

        An expired order is not sent, nor one that was read from disk after a restart: AppMaster
        resends it if it is still valid.
        """
        state, key = self._state, container_key(pod, incarnation)
        order, hosted = state.full_orders.get(pod), state.containers.get(key)
        if order is None or order.incarnation != incarnation or pod in state.finished:
            return
        if state.order_expiry_s.get(pod, now_s - 1) < now_s:
            return
        if hosted is not None and hosted.phase is HostedPhase.READY and key in state.connected:
            state.effects.append(DeliverOrder(container=pod, incarnation=incarnation, order=order))

    # ---- AppWorkers

    def on_connected(self, pod: str, incarnation: int, now_s: float) -> None:
        self._state.connected.add(container_key(pod, incarnation))
        self._deliver(pod, incarnation, now_s)

    def on_lost(self, pod: str, incarnation: int) -> None:
        self._state.connected.discard(container_key(pod, incarnation))

    def on_reported(self, event: WorkerReported) -> None:
        """Record an AppWorker's report about its own pod; refuse one about any other."""
        state, pod = self._state, event.pod
        hosted = state.containers.get(container_key(event.container, event.incarnation))
        if hosted is None or hosted.phase not in (HostedPhase.READY, HostedPhase.DESTROYING):
            return
        if (pod.pod, pod.incarnation) != (event.container, event.incarnation):
            text = f"says it is {pod.pod} incarnation {pod.incarnation}"
            state.effects.append(WriteLog(event="worker.misreported", subject=hosted.key, text=text))
            return
        before, finished = state.pods.get(pod.pod), state.finished.get(pod.pod)
        if before is not None and before.incarnation > pod.incarnation:
            return
        if finished is not None and pod.state is not PodState.FINISHED:
            return
        if finished is not None and before is not None:
            pod = replace(pod, generation=max(pod.generation, before.generation))
        state.record_pod(replace(pod, pid=state.pid_of(pod), ports=hosted.ports, cpu_milli=0, memory_bytes=0))

    def observed(self, pod: str) -> ObservedPod | None:
        """Return a pod as it is reported: with the last usage sample of its container."""
        row = self._state.pods.get(pod)
        if row is None:
            return None
        key = container_key(row.pod, row.incarnation)
        cpu_milli, memory_bytes = self._state.usage.get(key, (0, 0))
        pid = self._state.pids.get(key, 0)
        return replace(row, pid=pid, cpu_milli=cpu_milli, memory_bytes=memory_bytes)
