"""The state of a pod and its tasks inside AppWorker."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import PackageSpec, TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, OomKills, PodOrder, TaskState


class AfterStop(StrEnum):
    """What a stopping task does once none of its processes is left."""

    STAY_STOPPED = "stay-stopped"
    PLACE = "place"
    """Move the staged packages into place and start the program."""
    DEPLOY = "deploy"
    """Begin a new deployment."""
    FAIL = "fail"
    REMOVE = "remove"
    """Drop the task: the order no longer names it."""


class ReloadPhase(StrEnum):
    """The phase of giving new data to a running program."""

    NONE = "none"
    STAGING = "staging"
    WAITING = "waiting"
    """Fetching or unpacking failed; the next try is at ``SupervisedTask.due_s``."""
    PLACING = "placing"
    COMMAND = "command"
    """The reload command runs."""
    FAILED = "failed"


class Health(Struct, frozen=True, kw_only=True):
    """Health of a running program. ``verdict`` None means not known yet.

    ``failures`` counts failed probes in a row, ``probe`` numbers the probes sent. Times are
    monotonic seconds.
    """

    verdict: bool | None = None
    failures: int = 0
    probe: int = 0
    due_s: float | None = None
    """When to probe next; None while a probe is running."""
    gap_s: float = 0.0
    """Seconds from the last answer to the next probe: short after a start, later the check's interval."""


class SupervisedTask(Struct, frozen=True, kw_only=True):
    """One task of the pod: its desired spec and its actual state. Times are monotonic seconds.

    ``run`` numbers the programs started and ``deploy`` the deployments begun. An event that
    carries another number is stale and is ignored.
    """

    spec: TaskSpec
    state: TaskState = TaskState.PENDING
    run: int = 0
    deploy: int = 0
    running_spec: TaskSpec | None = None
    """Spec that the running program was started with; None when no program runs."""
    has_leftovers: bool = False
    """Processes that an ended program left behind may still exist."""
    after_stop: AfterStop = AfterStop.STAY_STOPPED
    due_s: float | None = None
    """When ``task.tick`` has something to do for the current state, health probes aside."""
    run_began_s: float = 0.0
    failures: int = 0
    """Restarts, or tries to deploy, used up since the order or since the last reset."""
    restarts: int = 0
    started_s: float | None = None
    """Start of the current program, Unix seconds."""
    last_exit: Exit | None = None
    reason: Reason | None = None
    oom_kills: OomKills | None = None
    """OOM kills since the order; None without any."""
    placed: tuple[PackageSpec, ...] = ()
    """Packages whose files are in place."""
    placed_unreliable: bool = False
    """``placed`` cannot be relied on: replacing the files has begun, or a redeploy is ordered."""
    reload: ReloadPhase = ReloadPhase.NONE
    health: Health = Health()
    removed: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def required(self) -> tuple[PackageSpec, ...]:
        """Packages that must be in place before the program starts."""
        own = (self.spec.package,) if self.spec.package else ()
        return own + (self.spec.data.packages if self.spec.data else ())

    @property
    def missing(self) -> tuple[PackageSpec, ...]:
        """Required packages that have to be fetched."""
        return tuple(
            package for package in self.required if self.placed_unreliable or package not in self.placed
        )

    @property
    def packages_in_place(self) -> bool:
        """Whether exactly the required packages are in place: none missing, none left over."""
        return not self.placed_unreliable and not self.missing and len(self.placed) == len(self.required)


class SupervisedPod(Struct, frozen=True, kw_only=True):
    """The pod of one container: the order in force and the tasks.

    ``known`` are the task names that the container was created with.
    """

    known: tuple[str, ...]
    ceilings: dict[str, int] = {}
    """The most that this AppWorker may give of each resource limit; -1 is unlimited."""
    order: PodOrder | None = None
    tasks: tuple[SupervisedTask, ...] = ()
    quitting: bool = False
    ended: bool = False
