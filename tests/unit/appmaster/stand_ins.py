"""ResMan, agents and AppWorkers as AppMaster meets them: they keep the promises of the messages.

What a program does is told by its start command: ``serve``, ``serve v2``; ``fail`` ends badly for
good; ``crash`` ends badly for ever; ``exit 0 after 1`` ends with that code after so many seconds.
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
    """Places slots on living agents in turn; answers every order with all it knows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[str, GroupOrder] = {}
        self.slots: dict[str, dict[int, SlotStatus]] = {}
        self.turn = 0
        self.blocked = False
        self.make_s = 0.02
        self.identity: IdentityOrder | None = None

    def take(self, orders: GroupOrders) -> None:
        if orders.identity is not None:
            self._apply_identity(orders.identity)
        for order in orders.orders:
            self._obey(order)
            self.tell(order.group, full=True)

    def _apply_identity(self, order: IdentityOrder) -> None:
        last = self.identity
        if last is None or (order.epoch, order.serial) > (last.epoch, last.serial):
            self.identity = last = order
        ack = GroupStatuses(statuses=(), identity=IdentityAck(epoch=last.epoch, serial=last.serial))
        self.world.post(lambda: self.world.feed(ack))

    def _obey(self, order: GroupOrder) -> None:
        last = self.orders.get(order.group)
        if last is None and order.remove:
            return
        if last is not None and (order.epoch, order.serial) <= (last.epoch, last.serial):
            return
        self.orders[order.group] = order
        slots = self.slots.setdefault(order.group, {})
        wanted = set() if order.remove else set(range(order.replicas)) - set(order.release)
        for index in sorted(set(slots) | wanted):
            slot = slots.get(index)
            if index in wanted and (
                slot is None or slot.state in (ContainerState.GONE, ContainerState.DESTROYING)
            ):
                self.place(order.group, index)
            elif (
                index not in wanted
                and slot
                and slot.state not in (ContainerState.GONE, ContainerState.DESTROYING)
            ):
                self._destroy(order.group, index)
        self._end_if_empty(order.group)

    def place(self, group: str, index: int) -> None:
        slots = self.slots[group]
        old = slots.get(index)
        living = [name for name, agent in self.world.agents.items() if agent.alive]
        incarnation = old.incarnation if old else 0
        if self.blocked or not living:
            slots[index] = SlotStatus(
                container=f"{group}.{index}", incarnation=incarnation, state=ContainerState.PENDING
            )
            return
        self.turn += 1
        agent = living[self.turn % len(living)]
        slot = SlotStatus(
            container=f"{group}.{index}",
            incarnation=incarnation + 1,
            state=ContainerState.ALLOCATING,
            agent=agent,
            address=agent,
        )
        slots[index] = slot
        self.world.after(self.make_s, lambda: self._made(group, index, slot))

    def _made(self, group: str, index: int, slot: SlotStatus) -> None:
        if self.slots.get(group, {}).get(index) is not slot or not self.world.agents[slot.agent].alive:
            return
        demand = self.orders[group].demand
        ports = {port.name: 20_000 + self.turn * 70 + n for n, port in enumerate(demand.ports)}
        ready = msgspec.structs.replace(slot, state=ContainerState.READY, ports=ports)
        self.slots[group][index] = ready
        self.world.agents[slot.agent].make(ready)
        self.tell(group, slots=[ready])

    def _destroy(self, group: str, index: int) -> None:
        slot = self.slots[group][index]
        gone = msgspec.structs.replace(slot, state=ContainerState.DESTROYING)
        self.slots[group][index] = gone
        if slot.agent:
            self.world.agents[slot.agent].destroy(slot.container, slot.incarnation)
        self.world.after(STOP_S, lambda: self._destroyed(group, index, gone))

    def _destroyed(self, group: str, index: int, slot: SlotStatus) -> None:
        slots = self.slots.get(group, {})
        if slots.get(index) is slot:
            slots[index] = msgspec.structs.replace(slot, state=ContainerState.GONE, agent="", ports={})
        self._end_if_empty(group)
        self.tell(group, full=True)

    def _end_if_empty(self, group: str) -> None:
        slots, order = self.slots.get(group, {}), self.orders.get(group)
        if order and order.remove and all(s.state is ContainerState.GONE for s in slots.values()):
            del self.orders[group], self.slots[group]

    def agent_died(self, name: str) -> None:
        for group, slots in self.slots.items():
            for index, slot in list(slots.items()):
                if slot.agent == name and slot.state is ContainerState.DESTROYING:
                    self._destroyed(group, index, slot)
                elif slot.agent == name:
                    self.place(group, index)
            self.tell(group, full=True)

    def tell(self, group: str, *, slots: Iterable[SlotStatus] = (), full: bool = False) -> None:
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
    """Holds orders for containers that are still made; reports what changes, and all when asked."""

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

    def take(self, orders: PodOrders) -> None:
        if not self.alive or orders.epoch < self.epoch:
            return
        self.epoch = orders.epoch
        for order in orders.orders:
            held = self.orders.get(order.pod)
            if held is None or (order.incarnation, order.generation) > (held.incarnation, held.generation):
                self.orders[order.pod] = order
            self._hand_over(order.pod)
        if orders.report:
            self.report(list(self.workers.values()), full=True)

    def make(self, slot: SlotStatus) -> None:
        self.workers[slot.container] = Worker(self, slot)
        self._hand_over(slot.container)

    def destroy(self, pod: str, incarnation: int) -> None:
        worker = self.workers.get(pod)
        if worker and worker.incarnation <= incarnation:
            worker.end()
            del self.workers[pod]

    def _hand_over(self, pod: str) -> None:
        worker, order = self.workers.get(pod), self.orders.get(pod)
        if worker and order and order.incarnation == worker.incarnation:
            worker.obey(order)

    def report(self, workers: Iterable[Worker], *, full: bool = False) -> None:
        if not self.alive:
            return
        self.serial += 1
        report = AgentReport(
            agent=self.name,
            boot=self.boot,
            serial=self.serial,
            full=full,
            pods=tuple(worker.found() for worker in workers),
        )
        self.world.post(lambda: self.world.feed(report))

    def digest(self) -> int:
        digest = 0
        for worker in self.workers.values():
            found = worker.found()
            digest ^= digest_of_pod(
                found.pod, found.incarnation, found.generation, found.state, found.healthy
            )
        return digest

    def die(self, *, noticed_after_s: float = 5.0) -> None:
        self.alive = False
        for worker in self.workers.values():
            worker.end()
        self.workers.clear()
        self.world.after(noticed_after_s, lambda: self.world.resman.agent_died(self.name))

    def reboot(self, times: int = 1) -> None:
        """Only the agent's process starts anew: its programs have run on."""
        self.boot = f"{self.name}-{int(self.boot.rpartition('-')[2]) + times}"
        self.serial = 0
        self.report(list(self.workers.values()), full=True)


class Worker:
    """The programs of one life of a container."""

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
        self.exit: Exit | None = None
        self.life = 0

    def end(self) -> None:
        self.life += 1
        self.program, self.ready = "", False

    def obey(self, order: PodOrder) -> None:
        last = self.order
        if last is not None and order.generation <= last.generation:
            self.agent.report([self])
            return
        self.order = order
        if not order.run:
            if self.state is PodState.FINISHED and order.batch:
                self._now(self.state)
            elif self.state in (PodState.PENDING, PodState.FAILED, PodState.STOPPED):
                self._now(PodState.STOPPED)
            else:
                self._down(PodState.STOPPING, STOP_S, lambda: self._now(PodState.STOPPED))
            return
        same = last is not None and _program(last) == _program(order) and not order.redeploy
        if last is not None and last.run and same:
            self._now(self.state)
        else:
            self.restarts = 0
            self._down(PodState.DEPLOYING, DEPLOY_S, self._start)

    def _down(self, state: PodState, wait_s: float, then: Callable[[], None]) -> None:
        self.program, self.ready = "", False
        self._now(state)
        self._later(wait_s, then)

    def _start(self) -> None:
        assert self.order is not None
        self.program = self.order.tasks[0].start
        self.agent.runs.append((self.pod, self.incarnation, self.program))
        words = self.program.split()
        if words[0] == "serve":
            self._now(PodState.RUNNING)
            self._later(HEALTHY_S, self._healthy)
        elif words[0] == "exit":
            self._now(PodState.RUNNING)
            self._later(float(words[3]), lambda: self._exited(int(words[1]), again=False))
        else:
            self._now(PodState.RUNNING)
            self._later(0.1, lambda: self._exited(1, again=words[0] == "crash"))

    def _healthy(self) -> None:
        self.ready = True
        self._now(self.state)

    def _exited(self, code: int, *, again: bool) -> None:
        self.program, self.ready = "", False
        self.exit = Exit(at_s=self.world.now, code=code)
        if again:
            self._now(PodState.BACKOFF)
            self._later(1.0, self._restart)
        else:
            self._now(PodState.FINISHED if code == 0 else PodState.FAILED)

    def _restart(self) -> None:
        self.restarts += 1
        self._start()

    def crash_once(self) -> None:
        """The program is killed from outside, and is restarted by its policy."""
        self._exited(137, again=True)

    def _later(self, delay_s: float, then: Callable[[], None]) -> None:
        self.life += 1
        life = self.life
        self.world.after(delay_s, lambda: then() if life == self.life else None)

    def _now(self, state: PodState) -> None:
        self.state = state
        self.agent.report([self])

    def found(self) -> ObservedPod:
        bad = self.state in (PodState.FAILED, PodState.BACKOFF)
        task = ObservedTask(
            name="main",
            state=TaskState(self.state.value),
            restarts=self.restarts,
            healthy=self.ready if self.state is PodState.RUNNING else None,
            last_exit=self.exit,
            reason=Reason(code="exited", message=str(self.exit)) if bad else None,
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
