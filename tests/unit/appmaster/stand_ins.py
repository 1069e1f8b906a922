"""Fakes of ResMan, agents and AppWorkers that obey the protocol of the real ones.

The start command says what a program does. ``serve`` and ``serve v2`` run and become healthy.
``fail`` fails for good. ``crash`` fails and is restarted, again and again. ``exit 0 after 1`` ends
with that exit code after so many seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import (
    ContainerState,
    GroupOrder,
    GroupOrders,
    GroupStatus,
    GroupStatuses,
    Reason,
    SlotStatus,
)
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.messages.pod import (
    Exit,
    ObservedPod,
    ObservedTask,
    PodOrder,
    PodOrders,
    PodState,
    TaskState,
)

if TYPE_CHECKING:
    from tests.unit.appmaster.world import World

STOP_S = 0.2
DEPLOY_S = 0.3
HEALTHY_S = 0.2


class ResMan:
    """Places slots on the agents that are up, in turn; answers every order with a full status."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[str, GroupOrder] = {}
        self.slots: dict[str, dict[int, SlotStatus]] = {}
        self.turn = 0
        self.blocked = False
        self.create_s = 0.02
        self.identity: IdentityOrder | None = None

    def on_orders(self, orders: GroupOrders) -> None:
        if orders.identity is not None:
            self._apply_identity(orders.identity)
        for order in orders.orders:
            self._apply(order)
            self.send_status(order.group, full=True)

    def _apply_identity(self, order: IdentityOrder) -> None:
        last = self.identity
        if last is None or (order.epoch, order.serial) > (last.epoch, last.serial):
            self.identity = last = order
        ack = GroupStatuses(statuses=(), identity=IdentityAck(epoch=last.epoch, serial=last.serial))
        self.world.post(lambda: self.world.feed(ack))

    def _apply(self, order: GroupOrder) -> None:
        last = self.orders.get(order.group)
        if last is None and order.remove:
            return
        if last is not None and (order.epoch, order.serial) <= (last.epoch, last.serial):
            return
        self.orders[order.group] = order
        slots = self.slots.setdefault(order.group, {})
        desired = set() if order.remove else set(range(order.replicas)) - set(order.release)
        for index in sorted(set(slots) | desired):
            slot = slots.get(index)
            if index in desired and (
                slot is None or slot.state in (ContainerState.GONE, ContainerState.DESTROYING)
            ):
                self.place(order.group, index)
            elif (
                index not in desired
                and slot
                and slot.state not in (ContainerState.GONE, ContainerState.DESTROYING)
            ):
                self._destroy(order.group, index)
        self._end_if_empty(order.group)

    def place(self, group: str, index: int) -> None:
        slots = self.slots[group]
        old = slots.get(index)
        up = [name for name, agent in self.world.agents.items() if agent.alive]
        incarnation = old.incarnation if old else 0
        if self.blocked or not up:
            slots[index] = SlotStatus(
                container=f"{group}.{index}", incarnation=incarnation, state=ContainerState.PENDING
            )
            return
        self.turn += 1
        agent = up[self.turn % len(up)]
        slot = SlotStatus(
            container=f"{group}.{index}",
            incarnation=incarnation + 1,
            state=ContainerState.ALLOCATING,
            agent=agent,
            address=agent,
        )
        slots[index] = slot
        self.world.after(self.create_s, lambda: self._on_created(group, index, slot))

    def _on_created(self, group: str, index: int, slot: SlotStatus) -> None:
        if self.slots.get(group, {}).get(index) is not slot or not self.world.agents[slot.agent].alive:
            return
        demand = self.orders[group].demand
        ports = {port.name: 20_000 + self.turn * 70 + n for n, port in enumerate(demand.ports)}
        ready = msgspec.structs.replace(slot, state=ContainerState.READY, ports=ports)
        self.slots[group][index] = ready
        self.world.agents[slot.agent].on_created(ready)
        self.send_status(group, slots=[ready])

    def _destroy(self, group: str, index: int) -> None:
        slot = self.slots[group][index]
        gone = msgspec.structs.replace(slot, state=ContainerState.DESTROYING)
        self.slots[group][index] = gone
        if slot.agent:
            self.world.agents[slot.agent].on_destroyed(slot.container, slot.incarnation)
        self.world.after(STOP_S, lambda: self._destroyed(group, index, gone))

    def _destroyed(self, group: str, index: int, slot: SlotStatus) -> None:
        slots = self.slots.get(group, {})
        if slots.get(index) is slot:
            slots[index] = msgspec.structs.replace(slot, state=ContainerState.GONE, agent="", ports={})
        self._end_if_empty(group)
        self.send_status(group, full=True)

    def _end_if_empty(self, group: str) -> None:
        slots, order = self.slots.get(group, {}), self.orders.get(group)
        if order and order.remove and all(slot.state is ContainerState.GONE for slot in slots.values()):
            del self.orders[group], self.slots[group]

    def on_agent_lost(self, name: str) -> None:
        for group, slots in self.slots.items():
            for index, slot in list(slots.items()):
                if slot.agent == name and slot.state is ContainerState.DESTROYING:
                    self._destroyed(group, index, slot)
                elif slot.agent == name:
                    self.place(group, index)
            self.send_status(group, full=True)

    def send_status(self, group: str, *, slots: Iterable[SlotStatus] = (), full: bool = False) -> None:
        order = self.orders.get(group)
        status = GroupStatus(
            group=group,
            epoch=1,
            serial=order.serial if order else 0,
            slots=tuple(self.slots.get(group, {}).values()) if full else tuple(slots),
            full=full,
            known=order is not None,
        )
        self.world.post(lambda: self.world.feed(GroupStatuses(statuses=(status,))))


class Agent:
    """Keeps orders for containers that do not exist yet; reports changes, and everything when asked."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.boot = f"{name}-1"
        self.serial = 0
        self.epoch = 0
        self.workers: dict[str, Worker] = {}
        self.orders: dict[str, PodOrder] = {}
        self.runs: list[tuple[str, int, str]] = []

    def on_orders(self, orders: PodOrders) -> None:
        if not self.alive or orders.epoch < self.epoch:
            return
        self.epoch = orders.epoch
        for order in orders.orders:
            present = self.orders.get(order.pod)
            if present is None or (order.incarnation, order.generation) > (
                present.incarnation,
                present.generation,
            ):
                self.orders[order.pod] = order
            self._deliver(order.pod)
        if orders.report:
            self.report(list(self.workers.values()), full=True)

    def on_created(self, slot: SlotStatus) -> None:
        self.workers[slot.container] = Worker(self, slot)
        self._deliver(slot.container)

    def on_destroyed(self, pod: str, incarnation: int) -> None:
        worker = self.workers.get(pod)
        if worker and worker.incarnation <= incarnation:
            worker.kill()
            del self.workers[pod]

    def _deliver(self, pod: str) -> None:
        worker, order = self.workers.get(pod), self.orders.get(pod)
        if worker and order and order.incarnation == worker.incarnation:
            worker.on_order(order)

    def report(self, workers: Iterable[Worker], *, full: bool = False) -> None:
        if not self.alive:
            return
        self.serial += 1
        report = AgentReport(
            agent=self.name,
            boot=self.boot,
            serial=self.serial,
            full=full,
            pods=tuple(worker.observed() for worker in workers),
        )
        self.world.post(lambda: self.world.feed(report))

    def digest(self) -> int:
        digest = 0
        for worker in self.workers.values():
            observed = worker.observed()
            digest ^= digest_of_pod(
                observed.pod, observed.incarnation, observed.generation, observed.state, observed.healthy
            )
        return digest

    def die(self, *, noticed_after_s: float = 5.0) -> None:
        self.alive = False
        for worker in self.workers.values():
            worker.kill()
        self.workers.clear()
        self.world.after(noticed_after_s, lambda: self.world.resman.on_agent_lost(self.name))

    def reboot(self, times: int = 1) -> None:
        """Restart the agent's process only; its programs keep running."""
        self.boot = f"{self.name}-{int(self.boot.rpartition('-')[2]) + times}"
        self.serial = 0
        self.report(list(self.workers.values()), full=True)


class Worker:
    """The program in one incarnation of a container. At most one timer is set at any time."""

    def __init__(self, agent: Agent, slot: SlotStatus) -> None:
        self.agent = agent
        self.world = agent.world
        self.pod = slot.container
        self.incarnation = slot.incarnation
        self.ports = slot.ports
        self.pid = 1000 + len(agent.runs) * 100 + len(agent.workers)
        self.order: PodOrder | None = None
        self.state = PodState.PENDING
        self.program = ""
        self.ready = False
        self.restarts = 0
        self.last_exit: Exit | None = None
        self.timer_serial = 0

    def kill(self) -> None:
        self.timer_serial += 1
        self.program, self.ready = "", False

    def on_order(self, order: PodOrder) -> None:
        last = self.order
        if last is not None and order.generation <= last.generation:
            self.agent.report([self])
            return
        self.order = order
        if not order.run:
            if self.state is PodState.FINISHED and order.batch:
                self._enter(self.state)
            elif self.state in (PodState.PENDING, PodState.FAILED, PodState.STOPPED):
                self._enter(PodState.STOPPED)
            else:
                self._down(PodState.STOPPING, STOP_S, lambda: self._enter(PodState.STOPPED))
            return
        unchanged = last is not None and _program(last) == _program(order) and not order.redeploy
        if last is not None and last.run and unchanged:
            self._enter(self.state)
        else:
            self.restarts = 0
            self._down(PodState.DEPLOYING, DEPLOY_S, self.start)

    def _down(self, state: PodState, wait_s: float, then: Callable[[], None]) -> None:
        self.program, self.ready = "", False
        self._enter(state)
        self.later(wait_s, then)

    def start(self) -> None:
        assert self.order is not None
        self.program = self.order.tasks[0].start
        self.agent.runs.append((self.pod, self.incarnation, self.program))
        arguments = self.program.split()
        if arguments[0] == "serve":
            self._enter(PodState.RUNNING)
            self.later(HEALTHY_S, self.become_healthy)
        elif arguments[0] == "exit":
            self._enter(PodState.RUNNING)
            self.later(float(arguments[3]), lambda: self.end_program(int(arguments[1]), restart=False))
        else:
            self._enter(PodState.RUNNING)
            self.later(0.1, lambda: self.end_program(1, restart=arguments[0] == "crash"))

    def become_healthy(self) -> None:
        self.ready = True
        self._enter(self.state)

    def end_program(self, code: int, *, restart: bool) -> None:
        self.program, self.ready = "", False
        self.last_exit = Exit(at_s=self.world.now, code=code)
        if restart:
            self._enter(PodState.BACKOFF)
            self.later(1.0, self._restart)
        else:
            self._enter(PodState.FINISHED if code == 0 else PodState.FAILED)

    def _restart(self) -> None:
        self.restarts += 1
        self.start()

    def crash_once(self) -> None:
        """Kill the program; its restart policy starts it again."""
        self.end_program(137, restart=True)

    def later(self, delay_s: float, then: Callable[[], None]) -> None:
        self.timer_serial += 1
        serial = self.timer_serial
        self.world.after(delay_s, lambda: then() if serial == self.timer_serial else None)

    def _enter(self, state: PodState) -> None:
        self.state = state
        self.agent.report([self])

    def observed(self) -> ObservedPod:
        failed = self.state in (PodState.FAILED, PodState.BACKOFF)
        task = ObservedTask(
            name="main",
            state=TaskState(self.state.value),
            restarts=self.restarts,
            healthy=self.ready if self.state is PodState.RUNNING else None,
            last_exit=self.last_exit,
            reason=Reason(code="exited", message=str(self.last_exit)) if failed else None,
        )
        return ObservedPod(
            pod=self.pod,
            incarnation=self.incarnation,
            generation=self.order.generation if self.order else 0,
            state=self.state,
            healthy=self.ready and self.state is PodState.RUNNING,
            tasks=(task,),
            pid=self.pid,
            ports=self.ports,
        )


def _program(order: PodOrder) -> tuple[Any, ...]:
    task = order.tasks[0]
    return (task.start, task.package, task.env)
