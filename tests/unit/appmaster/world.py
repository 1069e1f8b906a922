"""Jobs to submit, and a short form of ``Scenario`` for tests that drive a cluster through AppMaster."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.catalog import BODIES
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
from galaxy.model.base import decode, encode, from_plain
from galaxy.model.jobspec.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    JobType,
    MemorySpec,
    PodSpec,
    PortSpec,
    RestartSpec,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import GroupOrder, SlotStatus
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.messages.names import APPMASTER, GROUP_STATUS, RESMAN
from galaxy.model.stored.container import Container, Group
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.config import with_liveness_times
from galaxy.resman.logic.state.tables import IDENTITY
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.bus import REPORT
from galaxy.testing.simulation.faults import NO_FAULTS, Faults
from galaxy.testing.simulation.host import HEARTBEAT_S, Host
from galaxy.testing.simulation.leader import HEARTBEATS_INTERVAL_S, LeaderProcess
from galaxy.testing.simulation.scenario import START_WITHIN_S, Scenario

ATTEMPTS_MAX: Final = 20
"""How often a request is sent; more than the leaders that a test crashes at once."""
NEVER: Final = RestartSpec(policy="never")
"""Restart policy of a program that fails for good at its first failure."""
SUSPECT_S: Final = 4.0
DEAD_S: Final = 8.0
"""Default seconds of silence until ResMan suspects a host and gives it up: short, to keep tests fast."""
LISTEN_S: Final = 0.2
"""Seconds from a program's start until it accepts connections."""
FOREVER_S: Final = 1e6
"""Longer than any test runs, in simulated seconds."""


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
    task = TaskSpec(
        name="main", cpu=CpuSpec(millicores=100), memory=MemorySpec(size=64 << 20), start=start, restart=NEVER
    )
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


class World:
    """A ``Scenario`` with what tests of AppMaster ask it for, in short form.

    Start commands are those of ``galaxy.testing.simulation.appworker``.
    """

    def __init__(
        self,
        *,
        hosts: int = 3,
        seed: int = 1,
        faults: Faults = NO_FAULTS,
        config: AppMasterConfig | None = None,
        resman: bool = True,
        dead_s: float = DEAD_S,
        sizes: Sequence[dict[str, int]] = ({},),
    ) -> None:
        """``resman=False``: there is no ResMan, so that orders to it stay unanswered.

        ``dead_s``: silence in seconds after which ResMan places a host's containers elsewhere.
        """
        self.config = config or AppMasterConfig()
        resman_config = with_liveness_times(ResManConfig(), suspect_s=SUSPECT_S, dead_s=dead_s)
        self.scenario = Scenario(
            hosts=hosts,
            seed=seed,
            faults=faults,
            sizes=sizes,
            resman=(lambda: ResMan(resman_config)) if resman else None,
            appmaster=lambda: AppMaster(self.config),
        )
        self.hosts = self.scenario.hosts
        for host in self.hosts.values():
            host.machine.listen_s = LISTEN_S
        self.sends = self.scenario.sends
        self.watchers = self.scenario.watchers
        self.random = random.Random(seed)
        """Choices of the test itself, apart from those of the simulated world."""
        self._keys = 0

    # ---- time

    @property
    def now(self) -> float:
        return self.scenario.now_s

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self.scenario.world.after(delay_s, act)

    def run(self, seconds: float) -> None:
        self.scenario.run(seconds)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Advance until ``condition`` holds; return the seconds that it took."""
        return self.scenario.run_until(condition, within_s)

    # ---- AppMaster

    @property
    def leader(self) -> LeaderProcess:
        return self.scenario.leaders[APPMASTER]

    @property
    def master(self) -> AppMaster:
        """The logic that leads; waits for a leader when a crash has left none."""
        if self.leader.logic is None:
            self.run_until(lambda: self.leader.logic is not None, START_WITHIN_S)
        logic = self.scenario.logic(APPMASTER)
        assert isinstance(logic, AppMaster)
        return logic

    @property
    def store(self) -> dict[str, dict[str, bytes]]:
        """The committed rows of AppMaster's tables, encoded."""
        return {
            name: {key: encode(row) for key, row in self.scenario.stored(APPMASTER, name, table.kind).items()}
            for name, table in self.master.tables.items()
        }

    def failover(self) -> None:
        """Crash AppMaster and let another leadership begin, which knows only what was committed."""
        self.scenario.failover(APPMASTER)

    def crash_in_ticks(self, ticks: Iterable[int]) -> None:
        """Crash AppMaster between commit and send in these ticks, counted from the next one as 1."""
        self.leader.crash_after_ticks |= {self.leader.ticks + tick for tick in ticks}

    def feed(self, *events: Any) -> None:
        """Hand ``events`` to AppMaster as messages that arrive now, and let it step once."""
        assert self.master is not None
        self.scenario.deliver(APPMASTER, *events)

    # ---- ResMan and hosts

    def have_trouble(self, *, trouble: str) -> None:
        """Let all hosts state ``trouble`` in their heartbeats until ResMan knows; empty ends it.

        ResMan places nothing on a host in trouble.
        """
        for host in self.hosts.values():
            host.trouble = trouble
        self.run(HEARTBEAT_S + HEARTBEATS_INTERVAL_S)

    def order(self, job: str) -> GroupOrder:
        """Return the order for the job's containers that ResMan has applied last."""
        return self.scenario.stored(RESMAN, "groups", Group)[job].order

    def slots(self, job: str) -> list[Container]:
        """Return the job's containers as ResMan has stored them."""
        rows = self.scenario.stored(RESMAN, "containers", Container).values()
        return [row for row in rows if row.group == job]

    def identity(self) -> IdentityOrder:
        """Return the quotas and operators' keys that ResMan has stored."""
        return self.scenario.stored(RESMAN, "identity", IdentityOrder)[IDENTITY]

    # ---- messages on the bus

    def last_report(self, host: str) -> AgentReport:
        """Return the report of pods that the host's agent has sent last."""
        bodies = [
            send.body
            for send in self.sends
            if send.queue == APPMASTER and send.task == REPORT and send.body.agent == host
        ]
        return bodies[-1]

    def last_slot(self, pod: str) -> SlotStatus:
        """Return what ResMan has sent last about a pod's container."""
        statuses = [
            status for send in self.sends if send.task == GROUP_STATUS for status in send.body.statuses
        ]
        return [slot for status in statuses for slot in status.slots if slot.container == pod][-1]

    # ---- what clients do

    def request(self, body: Body[Any], *, key: str = "", op: str = "") -> Answer:
        """Send a request and return its answer. It is repeated with its key if a leader is lost."""
        self._keys += 1
        asked = Request(
            op=op or body.op,
            key=key or f"key-{self._keys}",
            reply=f"reply-{self._keys}",
            deadline_s=self.now + 30,
            user="ann",
            body=body,
            nonce=f"nonce-{self._keys}",
        )
        for _ in range(ATTEMPTS_MAX):
            self.feed(asked)
            if (answer := self.answer(asked)) is not None:
                return answer
        raise AssertionError(f"{asked.op} is not answered")

    def answer(self, request: Request) -> Answer | None:
        """Return the next answer to ``request`` with its result as a client reads it, None without one."""
        data = self.scenario.nexus.await_reply(request.reply, 0.0)
        if data is None:
            return None
        answer = decode(data, Answer)
        if answer.problem is not None:
            return answer
        result = from_plain(answer.result, BODIES[request.op].result)
        return msgspec.structs.replace(answer, result=result)

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
        seen = (0, 0)

        def there() -> bool:
            nonlocal seen
            if seen == (self.leader.epoch, self.leader.ticks):
                return False  # AppMaster has done nothing since the last look.
            view = self.show(job)
            seen = self.leader.epoch, self.leader.ticks
            return view.summary.state == state and view.settled

        return self.run_until(there, within_s)

    # ---- what really runs

    def programs(self) -> dict[str, str]:
        """Return the start commands of all running programs by pod."""
        return self.scenario.programs()

    def worker(self, pod: str) -> SimulatedAppWorker:
        """Return the AppWorker that runs in the pod's container."""
        return self.scenario.worker(pod)

    def host(self, pod: str) -> Host:
        """Return the host on which the pod's container runs."""
        return self.hosts[self.worker(pod).host]

    def starts(self) -> Counter[str]:
        """Return how often a program of each pod was started."""
        return Counter(pod for pod, _, _ in self.scenario.programs_started)

    def serves(self, address: str, port: int) -> bool:
        """Return whether a client that connects to ``address`` and ``port`` now reaches a service."""
        return any(
            host.info.address == address and port in worker.ports.values() and _serves(worker)
            for host in self.hosts.values()
            for worker in host.living.values()
        )


def lose_for_good(host: Host) -> None:
    """Switch ``host`` off; it does not come back."""
    host.power_off(FOREVER_S)


def _serves(worker: SimulatedAppWorker) -> bool:
    return any(
        spec.start.startswith("serve") and worker.listens(task) for task, (_, spec) in worker.running.items()
    )
