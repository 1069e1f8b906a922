"""The state of a pod and its tasks inside AppWorker."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import PackageSpec, TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, PodOrder, TaskState


class Then(StrEnum):
    """What a stopping task does once none of its processes is left."""

    REST = "rest"
    PLACE = "place"
    """Put the packages that are already unpacked aside in place, and start."""
    DEPLOY = "deploy"
    FAIL = "fail"
    LEAVE = "leave"
    """No order names the task any more."""


class Reload(StrEnum):
    """How far a running program's new data is."""

    NONE = "none"
    STAGING = "staging"
    WAITING = "waiting"
    """Fetching or unpacking failed; it is tried again at ``Task.due_s``."""
    PLACING = "placing"
    COMMAND = "command"
    FAILED = "failed"


class Health(Struct, frozen=True, kw_only=True):
    """What is known of a running program's health; ``verdict`` None is: not yet."""

    verdict: bool | None = None
    failures: int = 0
    probe: int = 0
    due_s: float | None = None
    gap_s: float = 0.0
    """Time from the last answer to the next question; short after a start, then the interval."""


class Task(Struct, frozen=True, kw_only=True):
    """One program of the pod: what it shall be, and where it is.

    ``run`` numbers the programs started and ``deploy`` the deployments begun, so that an echo
    of an earlier one is known as stale.
    """

    spec: TaskSpec
    state: TaskState = TaskState.PENDING
    run: int = 0
    deploy: int = 0
    live: TaskSpec | None = None
    """The spec that the running program was started with; None when none runs."""
    residue: bool = False
    """Processes that an ended program left behind may still be there."""
    then: Then = Then.REST
    due_s: float | None = None
    since_s: float = 0.0
    failures: int = 0
    """Restarts, or attempts to deploy, used up since the order or the last reset."""
    restarts: int = 0
    started_s: float | None = None
    last_exit: Exit | None = None
    reason: Reason | None = None
    placed: tuple[PackageSpec, ...] = ()
    stale: bool = False
    """What ``placed`` says is not to be relied on: a replacement was begun, or is ordered."""
    reload: Reload = Reload.NONE
    health: Health = Health()
    gone: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def wanted(self) -> tuple[PackageSpec, ...]:
        """Every package that has to be in place before the program starts."""
        own = (self.spec.package,) if self.spec.package else ()
        return own + (self.spec.data.packages if self.spec.data else ())

    @property
    def missing(self) -> tuple[PackageSpec, ...]:
        """The wanted packages that have to be fetched."""
        return tuple(package for package in self.wanted if self.stale or package not in self.placed)

    @property
    def in_place(self) -> bool:
        """Whether exactly the wanted packages are there: none missing, none left over."""
        return not self.stale and not self.missing and len(self.placed) == len(self.wanted)


class Pod(Struct, frozen=True, kw_only=True):
    """A pod: the order it obeys and its tasks. ``known`` are the tasks its container has room for."""

    known: tuple[str, ...]
    order: PodOrder | None = None
    tasks: tuple[Task, ...] = ()
    quitting: bool = False
    ended: bool = False
