"""What the pod's logic speaks of: a task's state, the events that reach it, the effects it owes."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Noun
from galaxy.model.container import Reason
from galaxy.model.pod import Exit, PodOrder, TaskState
from galaxy.model.spec import HealthSpec, PackageSpec, TaskSpec


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


class Health(Noun, frozen=True, kw_only=True):
    """What is known of a running program's health; ``verdict`` None is: not yet."""

    verdict: bool | None = None
    failures: int = 0
    probe: int = 0
    due_s: float | None = None
    gap_s: float = 0.0
    """Time from the last answer to the next question; short after a start, then the interval."""


class Task(Noun, frozen=True, kw_only=True):
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


class Pod(Noun, frozen=True, kw_only=True):
    """A pod: the order it obeys and its tasks. ``known`` are the tasks its container has room for."""

    known: tuple[str, ...]
    order: PodOrder | None = None
    tasks: tuple[Task, ...] = ()
    quitting: bool = False
    ended: bool = False


# ---- events


class Ordered(Noun, frozen=True, kw_only=True):
    order: PodOrder


class QuitAsked(Noun, frozen=True, kw_only=True):
    """The container shall end, after its programs have been stopped gracefully."""

    stop_timeout_s: float


class Ticked(Noun, frozen=True, kw_only=True):
    """Time has passed; what is due happens now."""


class Staged(Noun, frozen=True, kw_only=True):
    """The packages of a deployment are unpacked aside."""

    task: str
    deploy: int


class Placed(Noun, frozen=True, kw_only=True):
    """The packages of a deployment are in place."""

    task: str
    deploy: int


class DeployFailed(Noun, frozen=True, kw_only=True):
    task: str
    deploy: int
    reason: Reason
    retry: bool


class Started(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    at_s: float


class Ended(Noun, frozen=True, kw_only=True):
    """The program ended; processes that it started may still be there."""

    task: str
    run: int
    exit: Exit


class Emptied(Noun, frozen=True, kw_only=True):
    """No process of the task is left; commands run by ``exec`` are not counted."""

    task: str
    run: int


class Probed(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    probe: int
    ok: bool
    detail: str = ""


class StopCommandEnded(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    status: int


class ReloadEnded(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    status: int
    detail: str = ""


class Restarted(Noun, frozen=True, kw_only=True):
    """The wait after a failure is over."""


class Begun(Noun, frozen=True, kw_only=True):
    """The task shall run (again): deployment begins."""


class Crashed(Noun, frozen=True, kw_only=True):
    """The program ended and its policy gives it another try."""


class Completed(Noun, frozen=True, kw_only=True):
    """The program ended well, for good."""


class GaveUp(Noun, frozen=True, kw_only=True):
    """Program or deployment failed and there is no try left."""


class Halted(Noun, frozen=True, kw_only=True):
    """The task shall stop."""


class Resumed(Noun, frozen=True, kw_only=True):
    """The old program is gone, the new packages can be put in place."""


TaskEvent = (
    Staged | Placed | DeployFailed | Started | Ended | Emptied | Probed | StopCommandEnded | ReloadEnded
)
Event = Ordered | QuitAsked | Ticked | TaskEvent


# ---- effects


class StagePackages(Noun, frozen=True, kw_only=True):
    """Fetch ``packages`` and unpack them aside; answered by ``Staged`` or ``DeployFailed``."""

    task: str
    deploy: int
    packages: tuple[PackageSpec, ...]


class PlacePackages(Noun, frozen=True, kw_only=True):
    """Move what was staged in place; of the task's packages only ``wanted`` remain."""

    task: str
    deploy: int
    wanted: tuple[PackageSpec, ...]
    before: tuple[PackageSpec, ...] = ()
    """What was in place until now: where files to be withdrawn may lie."""


class CancelDeploy(Noun, frozen=True, kw_only=True):
    task: str


class StartProgram(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    spec: TaskSpec


class StopProgram(Noun, frozen=True, kw_only=True):
    """Ask the program to end: by its stop command, or by SIGTERM to all its processes."""

    task: str
    run: int
    spec: TaskSpec
    timeout_s: float
    spare: bool
    """Commands run by ``exec`` are left alone."""


class Terminate(Noun, frozen=True, kw_only=True):
    """SIGTERM to every process of the task."""

    task: str
    run: int


class KillTask(Noun, frozen=True, kw_only=True):
    """SIGKILL to every process of the task until none is left; answered by ``Emptied``."""

    task: str
    run: int
    spare: bool


class Probe(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    probe: int
    check: HealthSpec


class RunReload(Noun, frozen=True, kw_only=True):
    task: str
    run: int
    command: str


class EndContainer(Noun, frozen=True, kw_only=True):
    """Nothing runs any more: AppWorker may exit."""


Effect = (
    StagePackages
    | PlacePackages
    | CancelDeploy
    | StartProgram
    | StopProgram
    | Terminate
    | KillTask
    | Probe
    | RunReload
    | EndContainer
)
