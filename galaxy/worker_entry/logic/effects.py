"""Effects that the pod's logic asks of AppWorker."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import HealthSpec, PackageSpec, TaskSpec


class StagePackages(Struct, frozen=True, kw_only=True):
    """Fetch ``packages`` and unpack them aside; answered by ``PackagesStaged`` or ``DeployFailed``."""

    task: str
    deploy: int
    packages: tuple[PackageSpec, ...]


class PlacePackages(Struct, frozen=True, kw_only=True):
    """Move what was staged in place; of the task's packages only ``wanted`` remain."""

    task: str
    deploy: int
    wanted: tuple[PackageSpec, ...]
    before: tuple[PackageSpec, ...] = ()
    """What was in place until now: where files to be withdrawn may lie."""


class CancelDeploy(Struct, frozen=True, kw_only=True):
    task: str


class StartProgram(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    spec: TaskSpec


class StopProgram(Struct, frozen=True, kw_only=True):
    """Ask the program to end: by its stop command, or by SIGTERM to all its processes."""

    task: str
    run: int
    spec: TaskSpec
    timeout_s: float
    spare: bool
    """Commands run by ``exec`` are left alone."""


class Terminate(Struct, frozen=True, kw_only=True):
    """SIGTERM to every process of the task."""

    task: str
    run: int


class KillTask(Struct, frozen=True, kw_only=True):
    """SIGKILL to every process of the task until none is left; answered by ``Emptied``."""

    task: str
    run: int
    spare: bool


class Probe(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    probe: int
    check: HealthSpec


class RunReload(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    command: str


class EndContainer(Struct, frozen=True, kw_only=True):
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
