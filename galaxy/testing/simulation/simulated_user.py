"""A user who submits, updates, stops, starts and removes jobs, and repeats each request until answered."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.jobs import RemoveJob, StartJob, StopJob, SubmitJob, UpdateJob
from galaxy.model.api.quotas import SetQuota
from galaxy.model.api.request import Request
from galaxy.model.base import Struct, decode
from galaxy.model.jobspec.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    JobType,
    MemorySpec,
    PodSpec,
    PortSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.names import APPMASTER
from galaxy.model.resources import Ceiling
from galaxy.model.step import Send
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.faults import NO_FAULTS
from galaxy.testing.simulation.world import World
from galaxy.units import MIB

RETRY_S: Final = 2.0
POOLS: Final = ("*", "main")
"""Pools on which quotas are set in turn. Every host is in pool main, which some jobs name."""
PORTS: Final = (9001, 9002)
"""Fixed ports that jobs ask for. Two jobs of two pods share each, as there are four hosts."""


class ExpectedJob(Struct, frozen=True, kw_only=True):
    """What AppMaster has accepted for one job."""

    job: str
    spec: JobSpec
    desired: str = "run"
    revision: int = 1


class SimulatedUser:
    """Sends one request at a time, and repeats it with the same key until it is answered."""

    def __init__(
        self,
        world: World,
        bus: Bus,
        nexus: MemoryNexus,
        *,
        has_quota: bool = False,
        resizes: bool = False,
    ) -> None:
        """``has_quota``: an operator changes the user's quota now and then, also below the usage.

        ``resizes``: updates change the limits of tasks as well, with and without another program.
        """
        self.has_quota = has_quota
        self.resizes = resizes
        self.expected: dict[str, ExpectedJob] = {}
        self.requests = 0
        self.busy = False
        self.pending_job = ""
        """The job of the pending request: until the answer, its old and its new state are both right."""
        self.removed: set[str] = set()
        self._names = 0
        self._quotas = 0
        self._lifted: set[str] = set()
        """Pools whose quota is removed for good."""
        self._world = world
        self._bus = bus
        self._nexus = nexus

    def act(self) -> None:
        """Send one random request."""
        if self.busy:
            return
        if self.has_quota and self._world.chance(0.25):
            self._change_quota()
            return
        live = sorted(self.expected)
        choice = self._world.random.random()
        if len(live) < 2 or (choice < 0.35 and len(live) < 6):
            self._submit()
            return
        expected = self.expected[self._world.random.choice(live)]
        if expected.spec.type is JobType.SERVICE and choice < 0.65:
            self.update(expected, self._world.random.randrange(0, 3 if _fixed_port(expected.spec) else 6))
        elif expected.spec.type is JobType.SERVICE and choice < 0.75:
            self._ask_state(expected, "stop" if expected.desired == "run" else "run")
        elif choice < 0.9:
            self.remove(expected)

    # ---- requests

    def _submit(self) -> None:
        self._names += 1
        batch = self._world.chance(0.4)
        name = f"{'batch' if batch else 'web'}{self._names}"
        seconds = self._world.random.randrange(1, 20)
        start = ("fail" if self._world.chance(0.15) else "work") + f" {seconds}" if batch else "serve 1"
        port = 0 if batch else self._port()
        replica_max = 2 if port else 4
        cpu, memory = self._amounts()
        spec = JobSpec(
            name=name,
            type=JobType.BATCH if batch else JobType.SERVICE,
            deploy=DeploySpec(
                pools=("main",) if self.has_quota and self._names % 3 == 0 else (),
                replica=self._world.random.randrange(1, replica_max + 1),
                step=self._world.random.randrange(1, 3),
                max_per_host=self._world.random.choice((0, 0, 3)), stop_timeout=5.0, drain=0.5,
            ),
            pod=PodSpec(
                workspace=VolumeSpec(
                    path="/home/galaxy", size=self._world.random.choice((64, 128, 256)) * MIB
                ),
                tasks=(
                    TaskSpec(
                        name="main", cpu=cpu, memory=memory, start=start,
                        ports=() if batch else (PortSpec(name="http", port=port),),
                    ),
                ),
            ),
        )  # fmt: skip
        self.submit(spec)

    def _amounts(self) -> tuple[CpuSpec, MemorySpec]:
        draw = self._world.random.choice
        return CpuSpec(millicores=draw((100, 200, 400))), MemorySpec(size=draw((64, 128, 256)) * MIB)

    def _port(self) -> int:
        """Return a fixed port that few jobs use, or 0 for a dynamic one."""
        taken = [_fixed_port(job.spec) for job in self.expected.values()]
        free = [port for port in PORTS if taken.count(port) < 2]
        return self._world.random.choice(free) if free and self._world.chance(0.4) else 0

    def submit(self, spec: JobSpec) -> None:
        """Submit a job and record what was accepted."""

        def done(answer: Answer) -> None:
            if answer.problem is None:
                job = str(answer.result["job"])
                self.expected[spec.name] = ExpectedJob(job=job, spec=spec)
                start = spec.pod.tasks[0].start
                self._world.record(f"user has {job}: {spec.deploy.replica} x {start}")

        self._ask(SubmitJob(spec=spec), done)

    def update(self, expected: ExpectedJob, replica: int | None = None) -> None:
        """Update a service to the next version of its program, perhaps with another replica count."""
        task = expected.spec.pod.tasks[0]
        version = int(task.start.partition(" ")[2]) + 1
        if self.resizes and self._world.chance(0.6):
            cpu, memory = self._amounts()
            task = msgspec.structs.replace(task, cpu=cpu, memory=memory)
            version -= self._world.chance(0.5)
        replica = expected.spec.deploy.replica if replica is None else replica
        spec = msgspec.structs.replace(
            expected.spec,
            deploy=msgspec.structs.replace(expected.spec.deploy, replica=replica),
            pod=msgspec.structs.replace(
                expected.spec.pod, tasks=(msgspec.structs.replace(task, start=f"serve {version}"),)
            ),
        )

        def done(answer: Answer) -> None:
            if answer.problem is None:
                revision = int(answer.result["revision"])
                self.expected[spec.name] = msgspec.structs.replace(expected, spec=spec, revision=revision)
                text = f"{replica} x serve {version}, {task.cpu.millicores}m, {task.memory.size >> 20} MiB"
                self._world.record(f"user updated {expected.job} to {text}")

        self.pending_job = expected.job
        self._ask(UpdateJob(job=expected.job, spec=spec), done)

    def remove(self, expected: ExpectedJob) -> None:
        """Remove a job."""
        self._ask_state(expected, "remove")

    def _change_quota(self) -> None:
        """Set a random quota; some resources become unlimited."""
        draw = self._world.random.choice
        containers, cpu = draw((None, 1, 2, 4, 8)), draw((None, 300, 600, 1600))
        lifted = [name for name, limit in (("containers", containers), ("cpu_milli", cpu)) if limit is None]
        self._quotas += 1
        self._set_quota(
            Ceiling(containers=containers, cpu_milli=cpu), tuple(lifted), pool=POOLS[self._quotas % 2]
        )

    def remove_quota(self) -> None:
        """Remove both quotas, so that everything accepted before they were lowered can be placed."""
        if self.has_quota and not self.busy:
            left = [pool for pool in POOLS if pool not in self._lifted]
            self._set_quota(Ceiling(), ("containers", "cpu_milli"), pool=left[0])

    def _set_quota(self, ceiling: Ceiling, lifted: tuple[str, ...], *, pool: str) -> None:
        def done(answer: Answer) -> None:
            self._world.record(f"user may have {ceiling} in {pool}: {answer.problem or 'ok'}")
            if len(lifted) == 2 and answer.problem is None and self._world.faults is NO_FAULTS:
                self._lifted.add(pool)
                self.has_quota = len(self._lifted) < len(POOLS)

        asked = SetQuota(user="sim", pool=pool, ceiling=ceiling, lift=lifted)
        self._ask(asked, done)

    def _ask_state(self, expected: ExpectedJob, desired: str) -> None:
        body = {"stop": StopJob, "run": StartJob, "remove": RemoveJob}[desired](job=expected.job)

        def done(answer: Answer) -> None:
            self._world.record(f"user asked {body.op} of {expected.job}: {answer.problem or 'ok'}")
            if answer.problem is not None:
                return
            if desired == "remove":
                del self.expected[expected.spec.name]
                self.removed.add(expected.job)
            else:
                self.expected[expected.spec.name] = msgspec.structs.replace(expected, desired=desired)

        self.pending_job = expected.job
        self._ask(body, done)

    def _ask(self, body: Body[Any], done: Any) -> None:
        self.busy = True
        self.requests += 1
        key = f"key{self.requests}"

        def attempt() -> None:
            reply = f"{key}-reply"
            request = Request(
                op=body.op,
                key=key,
                reply=reply,
                deadline_s=self._world.now_s + RETRY_S,
                user="sim",
                body=body,
            )
            self._bus.send(Send(queue=APPMASTER, task=body.op, body=request, id=key))
            self._world.after(RETRY_S, check)

        def check() -> None:
            data = self._nexus.await_reply(f"{key}-reply", 0.0)
            if data is None:
                attempt()
                return
            self.busy, self.pending_job = False, ""
            done(decode(data, Answer))

        attempt()


def _fixed_port(spec: JobSpec) -> int:
    """Return the fixed port that a job asks for, 0 when it takes any."""
    return next((port.port for task in spec.pod.tasks for port in task.ports if port.port), 0)
