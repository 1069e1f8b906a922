"""A cluster around AppMaster's real logic: a virtual clock, a faulty bus, and fakes of the rest."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

import msgspec

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.jobs import (
    Discover,
    RecoverPod,
    RemoveJob,
    ShowJob,
    StartJob,
    StopJob,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.api.request import Request
from galaxy.model.api.views import EndpointView, JobView
from galaxy.model.base import WIRE_VERSION, Struct, decode, encode
from galaxy.model.jobspec.spec import (
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
from galaxy.model.messages.agent import Heartbeat, HeartbeatsRead
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.pod import PodOrders
from tests.unit.appmaster.stand_ins import Agent, ResMan


def service(name: str = "web", start: str = "serve", replica: int = 3, **deploy: Any) -> JobSpec:
    """Return a job whose pods serve a service of the job's name."""
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
    """Return ``spec`` with its one task changed."""
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


VERBS: dict[str, Any] = {"stop": StopJob, "start": StartJob, "remove": RemoveJob}


class Faults(Struct, frozen=True, kw_only=True):
    """What the bus does to messages: shares from 0 to 1, and the longest delay in seconds."""

    lose: float = 0.0
    double: float = 0.0
    delay_s: float = 0.02


class World:
    """One cluster; ``run`` advances its clock. All randomness comes from ``seed``."""

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
        self._wakes_at = 0.0
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

    def run_until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Advance until ``condition`` holds; return the seconds that it took."""
        start = self.now
        while not condition():
            if self.now - start > within_s:
                raise AssertionError(f"the condition does not hold within {within_s} s")
            self.run(0.05)
        return self.now - start

    def post(self, act: Callable[[], None]) -> None:
        """Deliver something over the bus, subject to its faults."""
        copies = 2 if self.random.random() < self.faults.double else 1
        for _ in range(copies):
            if self.random.random() >= self.faults.lose:
                self.after(self.random.uniform(0.001, max(self.faults.delay_s, 0.002)), act)

    # ---- AppMaster

    def failover(self) -> None:
        """Let another AppMaster lead, which knows only what was committed."""
        self.master = AppMaster(self.config)
        self.epoch += 1
        for name, table in self.master.tables.items():
            table.load(self.store.get(name, {}).items())
        self.master.lead(self.epoch, self.now)
        self.feed()

    def feed(self, *events: Any) -> None:
        """Make one tick: step, commit, publish. The leader may be lost between the last two."""
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
                self.post(lambda body=body: self.resman.on_orders(body))
            elif isinstance(body, PodOrders):
                agent = self.agents[send.queue.removeprefix("appworker.")]
                self.post(lambda body=body, agent=agent: agent.on_orders(body))
        for reply in step.replies:
            self.answers.setdefault(reply.reply, []).append(reply.answer)
        if step.wake_s is not None and not self.now < self._wakes_at <= step.wake_s:
            self._wakes_at = max(step.wake_s, self.now + 0.001)
            self.after(self._wakes_at - self.now, self.feed)
        for watch in self.watchers:
            watch()

    def _beat(self) -> None:
        beats = tuple(
            Heartbeat(
                agent=agent.name, at_s=self.now, boot=agent.boot, wire=WIRE_VERSION, pods=agent.digest()
            )
            for agent in self.agents.values()
            if agent.alive
        )
        self.feed(HeartbeatsRead(now_s=self.now, beats=beats))
        self.after(1.0, self._beat)

    # ---- what clients do

    def request(self, body: Body[Any], *, key: str = "", op: str = "") -> Answer:
        self._keys += 1
        key = key or f"key-{self._keys}"
        reply = f"reply-{self._keys}"
        asked = Request(
            op=op or body.op, key=key, reply=reply, deadline_s=self.now + 30, user="ann", body=body
        )
        for _ in range(
            20
        ):  # If the leader is lost before it answers, the client asks again with the same key.
            self.feed(asked)
            if reply in self.answers:
                break
        return self.answers[reply][-1]

    def ask(self, body: Body[Any], *, key: str = "") -> Any:
        """Return the result of a request that must not fail."""
        answer = self.request(body, key=key)
        assert answer.problem is None, answer.problem
        return answer.result

    def submit(self, spec: JobSpec, *, key: str = "") -> str:
        return self.ask(SubmitJob(spec=spec), key=key).job

    def update(self, job: str, spec: JobSpec) -> Any:
        return self.ask(UpdateJob(job=job, spec=spec))

    def do(self, verb: str, job: str) -> Any:
        return self.ask(VERBS[verb](job=job))

    def recover(self, job: str = "", pod: str = "") -> Any:
        return self.ask(RecoverPod(job=job, pod=pod))

    def show(self, job: str) -> JobView:
        return self.ask(ShowJob(job=job))

    def state(self, job: str) -> str:
        return self.show(job).summary.state

    def endpoints(self, name: str, *, all: bool = False) -> tuple[EndpointView, ...]:
        return self.ask(Discover(service=name, all=all)).endpoints

    def settle(self, job: str, state: str = "running", within_s: float = 60.0) -> float:
        def there() -> bool:
            view = self.show(job)
            return view.summary.state == state and view.settled

        return self.run_until(there, within_s)

    # ---- what really runs

    def programs(self) -> dict[str, str]:
        """Return the start commands of all running programs by pod."""
        return {
            worker.pod: worker.program
            for agent in self.agents.values()
            if agent.alive
            for worker in agent.workers.values()
            if worker.program
        }

    def serves(self, address: str, port: int) -> bool:
        return any(
            port in worker.ports.values() and worker.program.startswith("serve") and worker.ready
            for agent in self.agents.values()
            if agent.alive and agent.name == address
            for worker in agent.workers.values()
        )
