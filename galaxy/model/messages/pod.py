"""Messages about pods among AppMaster, agents and AppWorkers: orders, and what is observed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.redaction import without_credentials
from galaxy.model.stored.secret import EnvFrom, Secret


class PodOrder(Struct, frozen=True, kw_only=True):
    """AppMaster to an AppWorker: the desired state of the pod.

    ``generation`` grows with every new order for the pod; an order of the same or an older generation
    changes nothing. ``redeploy`` stops and deploys the programs again even if the tasks are equal.
    ``tasks`` have the units of ``TaskSpec``, ``stop_timeout`` is seconds.
    """

    pod: str
    incarnation: int
    generation: int
    job: str
    index: int
    revision: int
    run: bool
    """True: deploy and run. False: stop everything, keep the container."""
    tasks: tuple[TaskSpec, ...]
    stop_timeout: float = 30.0
    batch: bool = False
    redeploy: bool = False


def with_values(tasks: tuple[TaskSpec, ...], values: Mapping[str, Secret]) -> tuple[TaskSpec, ...]:
    """Return ``tasks`` with these values of secrets, by ``TASK/VARIABLE``, and no others."""
    return tuple(
        msgspec.structs.replace(
            task,
            env={
                name: msgspec.structs.replace(source, value=values.get(f"{task.name}/{name}"))
                if isinstance(source, EnvFrom)
                else source
                for name, source in task.env.items()
            },
        )
        for task in tasks
    )


def without_values(order: PodOrder) -> PodOrder:
    """Return ``order`` without the values of secrets, for disks and logs."""
    tasks = with_values(order.tasks, {})
    return order if tasks == order.tasks else msgspec.structs.replace(order, tasks=tasks)


class PodOrders(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: orders for the AppWorkers of its containers, from one tick."""

    agent: str
    epoch: int
    until_s: float
    """Redis' clock, Unix seconds, at which ``orders`` expire; see ``ContainerOrders.until_s``."""
    orders: tuple[PodOrder, ...] = ()
    report: bool = False
    """Ask for a full ``AgentReport`` of pods."""


class TaskState(StrEnum):
    """The state of one program of a pod, as its AppWorker reports it."""

    PENDING = "pending"
    DEPLOYING = "deploying"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class PodState(StrEnum):
    """The state of a pod, as its AppWorker reports it: that of its task in the worst state.

    ``pending``: no order has arrived yet. ``running``: every program is up; ``healthy`` says more.
    ``backoff``: a program waits for its restart. ``finished``: all programs ended with exit code 0,
    for good. ``failed``: restarts are used up, or deploying failed for good. ``stopped``: as ordered.
    """

    PENDING = "pending"
    DEPLOYING = "deploying"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class Exit(Struct, frozen=True, kw_only=True):
    """How a program ended. Times are Unix seconds; ``oom`` is proven by the cgroup's counter."""

    at_s: float
    code: int | None = None
    signal: int | None = None
    core: bool = False
    oom: bool = False
    cause: str = ""
    """Why no program ran, if none could be started."""

    @property
    def status(self) -> int:
        """The shell's exit code: 128 + signal for a killed program."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    def __str__(self) -> str:
        if self.oom:
            return "OOM-killed: went over its memory limit"
        if self.signal is not None:
            return f"killed by signal {self.signal}" + (", core dumped" if self.core else "")
        return f"exit code {self.code}" + (f": {self.cause}" if self.cause else "")


class OomKills(Struct, frozen=True, kw_only=True):
    """Processes of a program that the kernel killed for memory: ``count`` since its order.

    ``at_s`` is when the last one was noticed, in Unix seconds, and ``processes`` names it where known.
    """

    count: int
    at_s: float
    processes: str = ""


class ObservedTask(Struct, frozen=True, kw_only=True):
    """One program: ``restarts`` are those since its order, ``healthy`` is None while not known."""

    name: str
    state: TaskState
    restarts: int = 0
    healthy: bool | None = None
    started_s: float | None = None
    last_exit: Exit | None = None
    reason: Reason | None = None
    version: str = ""
    oom_kills: OomKills | None = None


class ObservedPod(Struct, frozen=True, kw_only=True):
    """What an AppWorker reports of its pod. ``generation`` is that of the last order applied, 0 for none.

    ``cpu_milli`` and ``memory_bytes`` are the last usage sample of the whole container.
    """

    pod: str
    incarnation: int
    generation: int
    state: PodState
    healthy: bool = False
    """Every program is up and no health check says otherwise."""
    tasks: tuple[ObservedTask, ...] = ()
    pid: int = 0
    """The AppWorker's pid on its host: PID 1 of the container."""
    ports: dict[str, int] = {}
    cpu_milli: int = 0
    memory_bytes: int = 0
    not_enforced: tuple[str, ...] = ()
    """Limits that its host does not enforce, of cpu, memory, pids and disk."""


def masked(observed: ObservedPod) -> ObservedPod:
    """Return ``observed`` with the credentials of URLs masked in the reasons of its tasks.

    AppWorkers mask them as well; AppMaster does not rely on it.
    """
    if not any(task.reason is not None and "://" in task.reason.message for task in observed.tasks):
        return observed
    tasks = tuple(
        msgspec.structs.replace(
            task,
            reason=msgspec.structs.replace(task.reason, message=without_credentials(task.reason.message)),
        )
        if task.reason is not None
        else task
        for task in observed.tasks
    )
    return msgspec.structs.replace(observed, tasks=tasks)
