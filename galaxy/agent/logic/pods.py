"""Pods: orders on their way to AppWorkers, and what AppWorkers say."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.memory import Memory
from galaxy.agent.logic.nouns import Deliver, Note, Phase, WorkerReported, life
from galaxy.model.names import APPMASTER
from galaxy.model.pod import PodFound, PodOrder, PodOrders, PodState


class Pods:
    """The pod half of the agent's logic, over a ``Memory``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def orders(self, orders: PodOrders) -> None:
        """Obey AppMaster, unless its epoch is over."""
        if not self._memory.obeys(APPMASTER, orders.epoch):
            return
        for order in orders.orders:
            self._order(order)
        if orders.report:
            self._memory.appmaster.mark_full()
        self._memory.trim_orders()

    def _order(self, order: PodOrder) -> None:
        memory = self._memory
        memory.appmaster.mark(order.pod)
        if (
            order.incarnation <= memory.buried(order.pod)
            and life(order.pod, order.incarnation) not in memory.held
        ):
            return
        there = memory.orders.get(order.pod)
        if there is not None and (there.incarnation, there.generation) >= (
            order.incarnation,
            order.generation,
        ):
            return
        if self._is_finished(order):
            return
        memory.orders.put(order.pod, order)
        self.deliver(order.pod, order.incarnation)

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

    def deliver(self, pod: str, incarnation: int) -> None:
        """Hand the newest order to this life's AppWorker, if both are there."""
        memory, key = self._memory, life(pod, incarnation)
        order, held = memory.orders.get(pod), memory.held.get(key)
        if order is None or order.incarnation != incarnation or pod in memory.finished:
            return
        if held is not None and held.phase is Phase.READY and key in memory.connected:
            memory.effects.append(Deliver(container=pod, incarnation=incarnation, order=order))

    def connected(self, pod: str, incarnation: int) -> None:
        self._memory.connected.add(life(pod, incarnation))
        self.deliver(pod, incarnation)

    def lost(self, pod: str, incarnation: int) -> None:
        self._memory.connected.discard(life(pod, incarnation))

    def reported(self, event: WorkerReported) -> None:
        """Believe an AppWorker about its own pod, and about nothing else."""
        memory, pod = self._memory, event.pod
        held = memory.held.get(life(event.container, event.incarnation))
        if held is None or held.phase not in (Phase.READY, Phase.DESTROYING):
            return
        if (pod.pod, pod.incarnation) != (event.container, event.incarnation):
            text = f"says it is {pod.pod} incarnation {pod.incarnation}"
            memory.effects.append(Note(event="worker.lies", subject=held.key, text=text))
            return
        there, done = memory.pods.get(pod.pod), memory.finished.get(pod.pod)
        if there is not None and there.incarnation > pod.incarnation:
            return
        if done is not None and pod.state is not PodState.FINISHED:
            return
        if done is not None and there is not None:
            pod = replace(pod, generation=max(pod.generation, there.generation))
        memory.pod_seen(replace(pod, pid=memory.pid_of(pod), ports=held.ports, cpu_milli=0, memory_bytes=0))

    def found(self, pod: str) -> PodFound | None:
        """Return a pod as reports tell it: with the last usage sample of its container."""
        row = self._memory.pods.get(pod)
        if row is None:
            return None
        key = life(row.pod, row.incarnation)
        cpu_milli, memory_bytes = self._memory.usage.get(key, (0, 0))
        pid = self._memory.pids.get(key, 0)
        return replace(row, pid=pid, cpu_milli=cpu_milli, memory_bytes=memory_bytes)
