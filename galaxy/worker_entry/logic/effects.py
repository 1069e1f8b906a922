"""Effects that the logic of a pod asks AppWorker to carry out.

An effect that takes time is answered by an event with the same ``run`` or ``deploy`` number.
"""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import HealthSpec, PackageSpec, TaskSpec


class StagePackages(Struct, frozen=True, kw_only=True):
    """Fetch ``packages`` and unpack them in the staging directory.

    Answered by ``PackagesStaged`` or ``DeployFailed``.
    """

    task: str
    deploy: int
    packages: tuple[PackageSpec, ...]


class PlacePackages(Struct, frozen=True, kw_only=True):
    """Move the staged packages into place and remove all others of the task.

    Answered by ``PackagesPlaced`` or ``DeployFailed``.
    """

    task: str
    deploy: int
    required: tuple[PackageSpec, ...]
    before: tuple[PackageSpec, ...] = ()
    """Packages in place until now: files to remove may be at their paths."""


class CancelDeploy(Struct, frozen=True, kw_only=True):
    """Abandon the task's current deployment; no event follows."""

    task: str


class StartProgram(Struct, frozen=True, kw_only=True):
    """Start the program. Answered by ``ProgramStarted`` and, later, ``ProgramEnded``.

    ``revision`` and ``restarts`` mark where its output begins.
    """

    task: str
    run: int
    spec: TaskSpec
    revision: int = 0
    restarts: int = 0


class StopProgram(Struct, frozen=True, kw_only=True):
    """Ask the program to end, by its stop command or by SIGTERM to all its processes.

    Answered by ``TaskEmptied`` once no process is left.
    """

    task: str
    run: int
    spec: TaskSpec
    timeout_s: float
    keep_execs: bool
    """Leave commands run by ``exec`` alone."""


class TerminateTask(Struct, frozen=True, kw_only=True):
    """Send SIGTERM to every process of the task."""

    task: str
    run: int


class KillTask(Struct, frozen=True, kw_only=True):
    """Send SIGKILL to every process of the task until none is left. Answered by ``TaskEmptied``."""

    task: str
    run: int
    keep_execs: bool


class RunProbe(Struct, frozen=True, kw_only=True):
    """Run one health check. Answered by ``ProbeAnswered``."""

    task: str
    run: int
    probe: int
    check: HealthSpec


class RunReload(Struct, frozen=True, kw_only=True):
    """Run the reload command; an empty one succeeds at once. Answered by ``ReloadEnded``."""

    task: str
    run: int
    command: str


class EndContainer(Struct, frozen=True, kw_only=True):
    """Exit: nothing runs any more."""


Effect = (
    StagePackages
    | PlacePackages
    | CancelDeploy
    | StartProgram
    | StopProgram
    | TerminateTask
    | KillTask
    | RunProbe
    | RunReload
    | EndContainer
)
