"""Events that the logic of a pod receives. ``at_s`` is Unix seconds.

``run`` and ``deploy`` name the program start or the deployment that an event belongs to; see
``SupervisedTask``.
"""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, PodOrder


class OrderReceived(Struct, frozen=True, kw_only=True):
    """The agent delivered an order for this pod."""

    order: PodOrder


class QuitRequested(Struct, frozen=True, kw_only=True):
    """The container is to end after its programs have stopped gracefully."""

    stop_timeout_s: float


class Ticked(Struct, frozen=True, kw_only=True):
    """Time has passed; do what is due now."""


class PackagesStaged(Struct, frozen=True, kw_only=True):
    """The packages of a deployment are unpacked in the staging directory."""

    task: str
    deploy: int


class PackagesPlaced(Struct, frozen=True, kw_only=True):
    """The packages of a deployment are in place."""

    task: str
    deploy: int


class DeployFailed(Struct, frozen=True, kw_only=True):
    """Staging or placing failed; ``retry`` says whether the cause is temporary.

    ``elsewhere``: the cause is this host, or may be, so that another host may succeed.
    """

    task: str
    deploy: int
    reason: Reason
    retry: bool
    elsewhere: bool = False


class ProgramStarted(Struct, frozen=True, kw_only=True):
    """A program is about to be forked."""

    task: str
    run: int
    at_s: float


class ProgramEnded(Struct, frozen=True, kw_only=True):
    """The program ended; processes that it started may still exist."""

    task: str
    run: int
    exit: Exit


class ProcessesOomKilled(Struct, frozen=True, kw_only=True):
    """The kernel OOM-killed ``count`` processes of the task; ``processes`` names them where known."""

    task: str
    at_s: float
    count: int
    processes: str = ""


class TaskEmptied(Struct, frozen=True, kw_only=True):
    """No process of the task is left; commands run by ``exec`` are not counted."""

    task: str
    run: int


class ProbeAnswered(Struct, frozen=True, kw_only=True):
    """Health probe number ``probe`` passed or failed."""

    task: str
    run: int
    probe: int
    ok: bool
    detail: str = ""


class StopCommandEnded(Struct, frozen=True, kw_only=True):
    """The spec's stop command ended, or could not be started."""

    task: str
    run: int
    status: int


class ReloadEnded(Struct, frozen=True, kw_only=True):
    """The spec's reload command ended, or there is none."""

    task: str
    run: int
    status: int
    detail: str = ""


# Internal events: the logic raises them itself. They are the columns of ``transitions.TRANSITIONS``.


class DeployBegan(Struct, frozen=True, kw_only=True):
    """A deployment of the task begins."""


class DeployResumed(Struct, frozen=True, kw_only=True):
    """The old program is gone, so the staged packages can be put in place."""


class StopBegan(Struct, frozen=True, kw_only=True):
    """The task begins to stop."""


class Restarted(Struct, frozen=True, kw_only=True):
    """The wait after a failure is over and the program starts again."""


class Crashed(Struct, frozen=True, kw_only=True):
    """The program ended and its restart policy allows another start."""


class Completed(Struct, frozen=True, kw_only=True):
    """The program ended successfully and is not started again."""


class GaveUp(Struct, frozen=True, kw_only=True):
    """The program or its deployment failed and no retry is left."""


TaskEvent = (
    PackagesStaged
    | PackagesPlaced
    | DeployFailed
    | ProgramStarted
    | ProgramEnded
    | ProcessesOomKilled
    | TaskEmptied
    | ProbeAnswered
    | StopCommandEnded
    | ReloadEnded
)
Event = OrderReceived | QuitRequested | Ticked | TaskEvent
