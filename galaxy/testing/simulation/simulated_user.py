"""A user who submits, updates, stops, starts and removes jobs, and insists on an answer."""

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
from galaxy.model.step import Send
from galaxy.model.stored.quota import Ceiling
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.faults import CALM
from galaxy.testing.simulation.world import World
from galaxy.units import MIB

RETRY_S: Final = 2.0
PORTS: Final = (9001, 9002)
"""Fixed ports that jobs ask for: two jobs of two pods each, for there are four hosts."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What the user was promised of one job."""

    job: str
    spec: JobSpec
    wish: str = "run"
    revision: int = 1


class SimulatedUser:
    """One request at a time, repeated with the same key until it is answered."""

    def __init__(self, world: World, bus: Bus, nexus: MemoryNexus, *, limited: bool = False) -> None:
        """``limited``: an operator gives the user quotas now and then, also less than he has."""
        self.limited = limited
        self.wanted: dict[str, Wanted] = {}
        self.requests = 0
        self.busy = False
        self.asking = ""
        """The job that the present request is about: until it is answered, either state of it is right."""
        self.removed: set[str] = set()
        self._names = 0
        self._world = world
        self._bus = bus
        self._nexus = nexus

    def act(self) -> None:
        """Ask for one thing, by chance."""
        if self.busy:
            return
        if self.limited and self._world.chance(0.25):
            self._limit()
            return
        live = sorted(self.wanted)
        choice = self._world.random.random()
        if len(live) < 2 or (choice < 0.35 and len(live) < 6):
            self._submit()
            return
        wanted = self.wanted[self._world.random.choice(live)]
        if wanted.spec.type is JobType.SERVICE and choice < 0.65:
            self.update(wanted, self._world.random.randrange(0, 3 if _fixed(wanted.spec) else 6))
        elif wanted.spec.type is JobType.SERVICE and choice < 0.75:
            self._wish(wanted, "stop" if wanted.wish == "run" else "run")
        elif choice < 0.9:
            self.remove(wanted)

    # ---- requests

    def _submit(self) -> None:
        self._names += 1
        batch = self._world.chance(0.4)
        name = f"{'batch' if batch else 'web'}{self._names}"
        seconds = self._world.random.randrange(1, 20)
        start = ("fail" if self._world.chance(0.15) else "work") + f" {seconds}" if batch else "serve 1"
        port = 0 if batch else self._port()
        most = 2 if port else 4
        spec = JobSpec(
            name=name,
            type=JobType.BATCH if batch else JobType.SERVICE,
            deploy=DeploySpec(
                replica=self._world.random.randrange(1, most + 1), step=self._world.random.randrange(1, 3),
                max_per_host=self._world.random.choice((0, 0, 3)), stop_timeout=5.0, drain=0.5,
            ),
            pod=PodSpec(
                workspace=VolumeSpec(
                    path="/home/galaxy", size=self._world.random.choice((64, 128, 256)) * MIB
                ),
                tasks=(
                    TaskSpec(
                        name="main", cpu=CpuSpec(millicores=self._world.random.choice((100, 200, 400))),
                        memory=MemorySpec(size=self._world.random.choice((64, 128, 256)) * MIB), start=start,
                        ports=() if batch else (PortSpec(name="http", port=port),),
                    ),
                ),
            ),
        )  # fmt: skip

        self.submit(spec)

    def _port(self) -> int:
        """Return a port of which every host has one and few jobs want it, or 0 for any."""
        taken = [_fixed(want.spec) for want in self.wanted.values()]
        free = [port for port in PORTS if taken.count(port) < 2]
        return self._world.random.choice(free) if free and self._world.chance(0.4) else 0

    def submit(self, spec: JobSpec) -> None:
        """Ask for a job, and remember what was promised."""

        def done(answer: Answer) -> None:
            if answer.problem is None:
                job = str(answer.result["job"])
                self.wanted[spec.name] = Wanted(job=job, spec=spec)
                start = spec.pod.tasks[0].start
                self._world.tell(f"user has {job}: {spec.deploy.replica} x {start}")

        self._ask(SubmitJob(spec=spec), done)

    def update(self, wanted: Wanted, replica: int | None = None) -> None:
        """Ask for the next version of a service's program, and perhaps for another size of it."""
        task = wanted.spec.pod.tasks[0]
        version = int(task.start.partition(" ")[2]) + 1
        replica = wanted.spec.deploy.replica if replica is None else replica
        spec = msgspec.structs.replace(
            wanted.spec,
            deploy=msgspec.structs.replace(wanted.spec.deploy, replica=replica),
            pod=msgspec.structs.replace(
                wanted.spec.pod, tasks=(msgspec.structs.replace(task, start=f"serve {version}"),)
            ),
        )

        def done(answer: Answer) -> None:
            if answer.problem is None:
                revision = int(answer.result["revision"])
                self.wanted[spec.name] = msgspec.structs.replace(wanted, spec=spec, revision=revision)
                self._world.tell(f"user updated {wanted.job} to {replica} x serve {version}")

        self.asking = wanted.job
        self._ask(UpdateJob(job=wanted.job, spec=spec), done)

    def remove(self, wanted: Wanted) -> None:
        """Ask for the end of a job."""
        self._wish(wanted, "remove")

    def _limit(self) -> None:
        """Have other ceilings, or none of one kind."""
        draw = self._world.random.choice
        containers, cpu = draw((None, 4, 6, 8, 12)), draw((None, 800, 1600, 2400))
        lift = [name for name, limit in (("containers", containers), ("cpu_milli", cpu)) if limit is None]
        self._set_quota(Ceiling(containers=containers, cpu_milli=cpu), tuple(lift))

    def lift(self) -> None:
        """Have no quota any more: what was accepted before a ceiling was lowered shall come to be."""
        if self.limited and not self.busy:
            self._set_quota(Ceiling(), ("containers", "cpu_milli"))

    def _set_quota(self, ceiling: Ceiling, lift: tuple[str, ...]) -> None:
        def done(answer: Answer) -> None:
            self._world.tell(f"user may have {ceiling}: {answer.problem or 'ok'}")
            if len(lift) == 2 and answer.problem is None and self._world.faults is CALM:
                self.limited = False

        asked = SetQuota(user="sim", ceiling=ceiling, lift=lift)
        self._ask(asked, done)

    def _wish(self, wanted: Wanted, wish: str) -> None:
        body = {"stop": StopJob, "run": StartJob, "remove": RemoveJob}[wish](job=wanted.job)

        def done(answer: Answer) -> None:
            self._world.tell(f"user asked {body.op} of {wanted.job}: {answer.problem or 'ok'}")
            if answer.problem is not None:
                return
            if wish == "remove":
                del self.wanted[wanted.spec.name]
                self.removed.add(wanted.job)
            else:
                self.wanted[wanted.spec.name] = msgspec.structs.replace(wanted, wish=wish)

        self.asking = wanted.job
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
            self._world.after(RETRY_S, look)

        def look() -> None:
            data = self._nexus.await_reply(f"{key}-reply", 0.0)
            if data is None:
                attempt()
                return
            self.busy, self.asking = False, ""
            done(decode(data, Answer))

        attempt()


def _fixed(spec: JobSpec) -> int:
    """Return the fixed port that a job asks for, 0 when it takes any."""
    return next((port.port for task in spec.pod.tasks for port in task.ports if port.port), 0)
