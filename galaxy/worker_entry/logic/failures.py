"""The events that answer an effect which AppWorker could not carry out."""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    Effect,
    EndContainer,
    KillTask,
    PlacePackages,
    RunProbe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
    TerminateTask,
)
from galaxy.worker_entry.logic.events import (
    DeployFailed,
    Event,
    ProbeAnswered,
    ProgramEnded,
    ReloadEnded,
    StopCommandEnded,
)

CANNOT_START: Final = 126
"""Exit code of a command that could not be started, as in a shell."""


def failure_of(effect: Effect, cause: str, at_s: float) -> Event | None:
    """Return the event that tells the pod's logic that ``effect`` failed; ``at_s`` is Unix seconds.

    None if nothing waits for an answer, or if the effect itself repeats until it succeeds: a stop that
    fails is followed by a kill at its deadline, and a kill is repeated until no process is left.
    """
    match effect:
        case StagePackages() | PlacePackages():
            reason = Reason(code="deploy-failed", message=cause)
            return DeployFailed(
                task=effect.task, deploy=effect.deploy, reason=reason, retry=True, elsewhere=True
            )
        case StartProgram():
            exit_ = Exit(at_s=at_s, code=CANNOT_START, cause=cause)
            return ProgramEnded(task=effect.task, run=effect.run, exit=exit_)
        case StopProgram():
            return StopCommandEnded(task=effect.task, run=effect.run, status=CANNOT_START)
        case RunProbe():
            return ProbeAnswered(task=effect.task, run=effect.run, probe=effect.probe, ok=False, detail=cause)
        case RunReload():
            return ReloadEnded(task=effect.task, run=effect.run, status=CANNOT_START, detail=cause)
        case TerminateTask() | KillTask() | CancelDeploy() | EndContainer():
            return None
