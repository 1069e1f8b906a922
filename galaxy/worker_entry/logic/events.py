"""Events that reach a pod inside its container."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, PodOrder


class Ordered(Struct, frozen=True, kw_only=True):
    order: PodOrder


class QuitAsked(Struct, frozen=True, kw_only=True):
    """The container shall end, after its programs have been stopped gracefully."""

    stop_timeout_s: float


class Ticked(Struct, frozen=True, kw_only=True):
    """Time has passed; what is due happens now."""


class PackagesStaged(Struct, frozen=True, kw_only=True):
    """The packages of a deployment are unpacked aside."""

    task: str
    deploy: int


class PackagesPlaced(Struct, frozen=True, kw_only=True):
    """The packages of a deployment are in place."""

    task: str
    deploy: int


class DeployFailed(Struct, frozen=True, kw_only=True):
    task: str
    deploy: int
    reason: Reason
    retry: bool


class ProgramStarted(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    at_s: float


class ProgramEnded(Struct, frozen=True, kw_only=True):
    """The program ended; processes that it started may still be there."""

    task: str
    run: int
    exit: Exit


class Emptied(Struct, frozen=True, kw_only=True):
    """No process of the task is left; commands run by ``exec`` are not counted."""

    task: str
    run: int


class Probed(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    probe: int
    ok: bool
    detail: str = ""


class StopCommandEnded(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    status: int


class ReloadEnded(Struct, frozen=True, kw_only=True):
    task: str
    run: int
    status: int
    detail: str = ""


class Restarted(Struct, frozen=True, kw_only=True):
    """The wait after a failure is over."""


class Begun(Struct, frozen=True, kw_only=True):
    """The task shall run (again): deployment begins."""


class Crashed(Struct, frozen=True, kw_only=True):
    """The program ended and its policy gives it another try."""


class Completed(Struct, frozen=True, kw_only=True):
    """The program ended well, for good."""


class GaveUp(Struct, frozen=True, kw_only=True):
    """Program or deployment failed and there is no try left."""


class Halted(Struct, frozen=True, kw_only=True):
    """The task shall stop."""


class Resumed(Struct, frozen=True, kw_only=True):
    """The old program is gone, the new packages can be put in place."""


TaskEvent = (
    PackagesStaged
    | PackagesPlaced
    | DeployFailed
    | ProgramStarted
    | ProgramEnded
    | Emptied
    | Probed
    | StopCommandEnded
    | ReloadEnded
)
Event = Ordered | QuitAsked | Ticked | TaskEvent
