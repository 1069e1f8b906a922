"""A cluster around AppMaster's real logic: a virtual clock, a faulty bus, a ResMan, agents with programs.

ResMan and agents here are stand-ins that keep the promises of the messages (``galaxy.model``).
What a program does is told by its start command: ``serve``, ``serve v2``; ``fail`` ends badly for
good; ``crash`` ends badly for ever; ``exit 0 after 1`` ends with that code after so many seconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.agent import AgentReport, Beat, BeatsSeen
from galaxy.model.answer import Answer
from galaxy.model.base import Noun, decode, encode
from galaxy.model.container import (
    ContainerState,
    GroupOrder,
    GroupOrders,
    GroupStatus,
    GroupStatuses,
    Reason,
    SlotStatus,
)
from galaxy.model.digest import digest_of_pod
from galaxy.model.names import RESMAN
from galaxy.model.pod import (
    Exit,
    PodFound,
    PodOrder,
    PodOrders,
    PodState,
    TaskFound,
    TaskState,
)
from galaxy.model.request import (
    Discover,
    JobRef,
    RecoverPod,
    Request,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    JobType,
    MemorySpec,
    PodSpec,
    PortSpec,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.views import EndpointView, JobView

STOP_S = 0.2
DEPLOY_S = 0.3
HEALTHY_S = 0.2


def service(name: str = "web", start: str = "serve", replica: int = 3, **deploy: Any) -> JobSpec:
    """A job whose pods serve a service of the job's name."""
    task = TaskSpec(
        name="main",
        cpu=CpuSpec(millicores=100),
        memory=MemorySpec(size=64 << 20),
        start=start,
        ports=(PortSpec(name="http"),),
        services=(ServiceSpec(name=name, port="http"),),
    )
    deploy.setdefault("drain", 1.0)
    return _job(name, task, JobType.SERVICE, replica, deploy)


def batch(name: str = "crunch", start: str = "exit 0 after 1", replica: int = 3, **deploy: Any) -> JobSpec:
    task = TaskSpec(name="main", cpu=CpuSpec(millicores=100), memory=MemorySpec(size=64 << 20), start=start)
    return _job(name, task, JobType.BATCH, replica, deploy)


def with_task(spec: JobSpec, **changes: Any) -> JobSpec:
    """``spec`` with its one task changed."""
    task = msgspec.structs.replace(spec.pod.tasks[0], **changes)
    return msgspec.structs.replace(spec, pod=msgspec.structs.replace(spec.pod, tasks=(task,)))


def with_deploy(spec: JobSpec, **changes: Any) -> JobSpec:
    return msgspec.structs.replace(spec, deploy=msgspec.structs.replace(spec.deploy, **changes))


def _job(name: str, task: TaskSpec, type_: JobType, replica: int, deploy: dict[str, Any]) -> JobSpec:
    return JobSpec(
        name=name,
        type=type_,
        pod=PodSpec(tasks=(task,), workspace=VolumeSpec(path="/home/work", size=1 << 20)),
        deploy=DeploySpec(replica=replica, **deploy),
    )


class Faults(Noun, frozen=True, kw_only=True):
    """What the bus does to messages: shares of 1, and seconds of delay at most."""

    lose: float = 0.0
    double: float = 0.0
    delay_s: float = 0.02


class World:
    """One cluster; ``run`` moves its clock. Everything random comes from ``seed``."""

    def __init__(
        self,
        *,
        agents: int = 3,
        seed: int = 1,
        faults: Faults | None = None,
        config: AppMasterConfig | None = None,
    ) -> None:
        self.now = 1_000_000.0
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.config = config
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._keys = 0
        self.store: dict[str, dict[str, bytes]] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.sends: list[Any] = []
        self.steps = 0
        self.crash_at_steps: set[int] = set()
        self.epoch = 0
        self.resman = ResMan(self)
        self.agents = {f"h{n}": Agent(self, f"h{n}") for n in range(agents)}
        self.watchers: list[Callable[[], None]] = []
        self.failover()
        self._beat()

    # ---- time

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._count, act))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            at, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            act()
        self.now = end

    def run_until(self, true: Callable[[], bool], within_s: float) -> float:
        """Move on until ``true``; return how long it took."""
        start = self.now
        while not true():
            if self.now - start > within_s:
                raise AssertionError(f"not true within {within_s} s")
            self.run(0.05)
        return self.now - start

    def post(self, act: Callable[[], None]) -> None:
        """Deliver something over the bus, as faults allow."""
        copies = 2 if self.random.random() < self.faults.double else 1
        for _ in range(copies):
            if self.random.random() >= self.faults.lose:
                self.after(self.random.uniform(0.001, max(self.faults.delay_s, 0.002)), act)

    # ---- AppMaster

    def failover(self) -> None:
        """Another AppMaster leads, with nothing but what was committed."""
        self.master = AppMaster(self.config)
        self.epoch += 1
        for name, table in self.master.tables.items():
            table.load(self.store.get(name, {}).items())
        self.master.lead(self.epoch, self.now)
        self.feed()

    def feed(self, *events: Any) -> None:
        """One tick: step, commit, publish; or the leader dies between the last two."""
        step = self.master.step(self.now, events)
        for table in self.master.tables.values():
            for change in table.changes():
                rows = self.store.setdefault(change.table, {})
                if change.value is None:
                    rows.pop(change.key, None)
                else:
                    rows[change.key] = change.value
            table.accept()
        self.steps += 1
        if self.steps in self.crash_at_steps:
            self.failover()
            return
        for send in step.sends:
            self.sends.append(send)
            body = decode(encode(send.body), type(send.body))
            if send.queue == RESMAN:
                self.post(lambda body=body: self.resman.take(body))
            elif isinstance(body, PodOrders):
                agent = self.agents[send.queue.removeprefix("appworker.")]
                self.post(lambda body=body, agent=agent: agent.take(body))
        for reply in step.replies:
            self.answers.setdefault(reply.reply, []).append(reply.answer)
        if step.wake_s is not None:
            master = self.master
            self.after(
                max(step.wake_s - self.now, 0.001), lambda: self.feed() if master is self.master else None
            )
        for watch in self.watchers:
            watch()

    def _beat(self) -> None:
        beats = tuple(
            Beat(agent=agent.name, at_s=self.now, boot=agent.boot, pods=agent.digest())
            for agent in self.agents.values()
            if agent.alive
        )
        self.feed(BeatsSeen(now_s=self.now, beats=beats))
        self.after(1.0, self._beat)

    # ---- what clients do

    def request(self, op: str, body: Noun, *, key: str = "") -> Answer:
        self._keys += 1
        key = key or f"key-{self._keys}"
        reply = f"reply-{self._keys}"
        asked = Request(op=op, key=key, reply=reply, deadline_s=self.now + 30, user="ann", body=body)
        for _ in range(3):  # A leader that dies before it answers is asked again, under the same key.
            self.feed(asked)
            if reply in self.answers:
                break
        return self.answers[reply][-1]

    def ask(self, op: str, body: Noun, *, key: str = "") -> Any:
        """Return the result of a request that must not fail."""
        answer = self.request(op, body, key=key)
        assert answer.problem is None, answer.problem
        return answer.result

    def submit(self, spec: JobSpec, *, key: str = "") -> str:
        return self.ask("galaxy.job.submit", SubmitJob(spec=spec), key=key).job

    def update(self, job: str, spec: JobSpec) -> Any:
        return self.ask("galaxy.job.update", UpdateJob(job=job, spec=spec))

    def do(self, verb: str, job: str) -> Any:
        return self.ask(f"galaxy.job.{verb}", JobRef(job=job))

    def recover(self, job: str = "", pod: str = "") -> Any:
        return self.ask("galaxy.job.recover", RecoverPod(job=job, pod=pod))

    def show(self, job: str) -> JobView:
        return self.ask("galaxy.job.show", JobRef(job=job))

    def state(self, job: str) -> str:
        return self.show(job).summary.state

    def endpoints(self, name: str, *, all: bool = False) -> tuple[EndpointView, ...]:
        return self.ask("galaxy.service.discover", Discover(service=name, all=all)).endpoints

    def settle(self, job: str, state: str = "running", within_s: float = 60.0) -> float:
        def there() -> bool:
            view = self.show(job)
            return view.summary.state == state and view.settled

        return self.run_until(there, within_s)

    # ---- what is really there

    def programs(self) -> dict[str, str]:
        """Every program that runs, by pod: the start command."""
        return {
            worker.pod: worker.program
            for agent in self.agents.values()
            if agent.alive
            for worker in agent.workers.values()
            if worker.program
        }

    def serves(self, address: str, port: int) -> bool:
        return any(
            worker.port == port and worker.program.startswith("serve") and worker.ready
            for agent in self.agents.values()
            if agent.alive and agent.name == address
            for worker in agent.workers.values()
        )


class ResMan:
    """Places slots on living agents in turn; answers every order with all it knows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[str, GroupOrder] = {}
        self.slots: dict[str, dict[int, SlotStatus]] = {}
        self.turn = 0
        self.blocked = False
        self.make_s = 0.02

    def take(self, orders: GroupOrders) -> None:
        for order in orders.orders:
            self._obey(order)
            self.tell(order.group, full=True)

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
        ports = {"http": 20_000 + self.turn * 7 + index}
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
        self.port = slot.ports.get("http", 0)
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

    def found(self) -> PodFound:
        bad = self.state in (PodState.FAILED, PodState.BACKOFF)
        task = TaskFound(
            name="main",
            state=TaskState(self.state.value),
            restarts=self.restarts,
            healthy=self.ready if self.state is PodState.RUNNING else None,
            last_exit=self.exit,
            reason=Reason(code="exited", message=str(self.exit)) if bad else None,
        )
        return PodFound(
            pod=self.pod,
            incarnation=self.incarnation,
            generation=self.order.generation if self.order else 0,
            state=self.state,
            healthy=self.ready and self.state is PodState.RUNNING,
            tasks=(task,),
            pid=1000 + self.port,
            ports={"http": self.port},
        )


def _program(order: PodOrder) -> tuple[Any, ...]:
    task = order.tasks[0]
    return (task.start, task.package, task.env)
