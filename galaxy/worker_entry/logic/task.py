"""What happens to one task at each event: (task, event) to (task, effects)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import PodOrder, TaskState
from galaxy.units import format_duration
from galaxy.worker_entry.logic import health, restart
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    Effect,
    KillTask,
    PlacePackages,
    Probe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
    Terminate,
)
from galaxy.worker_entry.logic.events import (
    Begun,
    Completed,
    Crashed,
    DeployFailed,
    Emptied,
    GaveUp,
    Halted,
    PackagesPlaced,
    PackagesStaged,
    Probed,
    ProgramEnded,
    ProgramStarted,
    ReloadEnded,
    Restarted,
    Resumed,
    StopCommandEnded,
    TaskEvent,
)
from galaxy.worker_entry.logic.records import Reload, Task, Then
from galaxy.worker_entry.logic.transitions import move

Moved = tuple[Task, tuple[Effect, ...]]

_SPARING: Final = (Then.PLACE, Then.DEPLOY, Then.FAIL)
"""A program that is replaced leaves the commands that people run beside it alone."""


def but(task: Task, **changes: Any) -> Task:
    return msgspec.structs.replace(task, **changes)


# ---- what orders and time make of a task


def begin(task: Task, order: PodOrder, now_s: float, *, failures: int = 0) -> Moved:
    """Deploy and start: a program of an earlier spec runs on until the new packages are ready."""
    task = move(
        task, Begun, deploy=task.deploy + 1, failures=failures, due_s=None, reason=None, reload=Reload.NONE
    )
    if task.missing:
        return task, (StagePackages(task=task.name, deploy=task.deploy, packages=task.missing),)
    return _ready(task, order, now_s)


def begin_reload(task: Task) -> Moved:
    """Bring new data to a running program."""
    task = but(task, deploy=task.deploy + 1, failures=0, due_s=None, reload=Reload.STAGING, reason=None)
    if not task.missing:
        return _place(task)
    return task, (StagePackages(task=task.name, deploy=task.deploy, packages=task.missing),)


def halt(task: Task, then: Then, stop_timeout_s: float, now_s: float) -> Moved:
    """Stop whatever runs of the task, and go on with ``then``."""
    kill_s = now_s + stop_timeout_s
    if task.state is TaskState.STOPPING:
        due_s = None if task.due_s is None else min(task.due_s, kill_s)
        unplaced = task.then is Then.PLACE and then is not Then.PLACE
        return but(task, then=then, due_s=due_s), (CancelDeploy(task=task.name),) if unplaced else ()
    deploying = task.state is TaskState.DEPLOYING or task.reload is not Reload.NONE
    cancel: tuple[Effect, ...] = ()
    if deploying and then is not Then.PLACE:
        cancel = (CancelDeploy(task=task.name),)
    reason = task.reason if then is Then.FAIL else None
    task = move(task, Halted, then=then, due_s=kill_s, reload=Reload.NONE, reason=reason)
    spare = then in _SPARING
    if task.live is not None:
        asked = StopProgram(
            task=task.name, run=task.run, spec=task.live, timeout_s=stop_timeout_s, spare=spare
        )
        return task, (*cancel, asked)
    # Nothing to ask: what an earlier program left, and exec's commands where they go too, is killed.
    return but(task, residue=True), (*cancel, KillTask(task=task.name, run=task.run, spare=spare))


def tick(task: Task, order: PodOrder, now_s: float) -> Moved:
    """Do what is due: a restart, another try to deploy, the kill, a question about health."""
    if task.state is TaskState.RUNNING:
        return _tick_running(task, order, now_s)
    if task.due_s is None or task.due_s > now_s:
        return task, ()
    if task.state is TaskState.BACKOFF:
        if task.residue:
            return task, ()
        task = but(task, restarts=task.restarts + 1, due_s=None)
        if not task.in_place:
            return begin(task, order, now_s, failures=task.failures)
        return _start(move(task, Restarted), order, now_s)
    task = but(task, due_s=None)
    if task.state is TaskState.STOPPING:
        return but(task, residue=True), (KillTask(task=task.name, run=task.run, spare=task.then in _SPARING),)
    if task.state is TaskState.DEPLOYING:
        task = but(task, deploy=task.deploy + 1)
        if not task.missing:
            return _ready(task, order, now_s)
        return task, (StagePackages(task=task.name, deploy=task.deploy, packages=task.missing),)
    return task, ()


def due(task: Task) -> float | None:
    """Return when ``tick`` next has something to do; None: not before another event."""
    if task.state is TaskState.BACKOFF and task.residue:
        return None
    times = [task.due_s, task.health.due_s if task.state is TaskState.RUNNING else None]
    return min((time for time in times if time is not None), default=None)


def _tick_running(task: Task, order: PodOrder, now_s: float) -> Moved:
    effects: list[Effect] = []
    if task.reload is Reload.WAITING and task.due_s is not None and task.due_s <= now_s:
        task = but(task, deploy=task.deploy + 1, due_s=None, reload=Reload.STAGING)
        effects.append(StagePackages(task=task.name, deploy=task.deploy, packages=task.missing))
    state = task.health
    if state.due_s is not None and state.due_s <= now_s:
        check = health.check_of(task.spec, order.batch)
        if check is None:
            return but(task, health=msgspec.structs.replace(state, verdict=True, due_s=None)), tuple(effects)
        state = msgspec.structs.replace(state, probe=state.probe + 1, due_s=None)
        task = but(task, health=state)
        effects.append(Probe(task=task.name, run=task.run, probe=state.probe, check=check))
    return task, tuple(effects)


# ---- what the world tells of a task


def take(task: Task, event: TaskEvent, order: PodOrder, now_s: float) -> Moved:
    """Return the task after ``event``; an echo of an earlier run or deployment changes nothing."""
    match event:
        case PackagesStaged() | PackagesPlaced() | DeployFailed():
            return (task, ()) if event.deploy != task.deploy else _deployment(task, event, order, now_s)
        case Emptied():
            return _emptied(task, order, now_s) if event.run == task.run and task.live is None else (task, ())
    if event.run != task.run or task.live is None:
        return task, ()
    match event:
        case ProgramStarted():
            return but(task, started_s=event.at_s), ()
        case ProgramEnded():
            return _ended(task, event, order, now_s)
        case Probed():
            return _probed(task, event, order, now_s), ()
        case StopCommandEnded():
            stopping = task.state is TaskState.STOPPING and event.status != 0
            return task, (Terminate(task=task.name, run=task.run),) if stopping else ()
        case ReloadEnded():
            return _reloaded(task, event), ()


def _deployment(
    task: Task, event: PackagesStaged | PackagesPlaced | DeployFailed, order: PodOrder, now_s: float
) -> Moved:
    if isinstance(event, PackagesPlaced):
        task = but(task, placed=task.wanted, stale=False)
    reloading = task.state is TaskState.RUNNING and task.reload is not Reload.NONE
    if task.state is not TaskState.DEPLOYING and not reloading:
        return task, ()
    match event:
        case PackagesStaged():
            return _place(task) if reloading else _ready(task, order, now_s)
        case PackagesPlaced() if reloading:
            command = task.spec.data.reload if task.spec.data else ""
            task = but(task, reload=Reload.COMMAND, failures=0)
            return task, (RunReload(task=task.name, run=task.run, command=command),)
        case PackagesPlaced():
            return _start(move(task, PackagesPlaced), order, now_s)
        case DeployFailed():
            return _deploy_failed(task, event, order, now_s)


def _deploy_failed(task: Task, event: DeployFailed, order: PodOrder, now_s: float) -> Moved:
    verdict = restart.after_failed_deploy(restart.rule(task.spec, order.batch), task.failures)
    if event.retry and isinstance(verdict, restart.Again):
        wait = format_duration(round(verdict.delay_s, 1))
        reason = msgspec.structs.replace(event.reason, message=f"{event.reason.message}; next try in {wait}")
        task = but(task, failures=verdict.failures, due_s=now_s + verdict.delay_s, reason=reason)
        return (but(task, reload=Reload.WAITING), ()) if task.state is TaskState.RUNNING else (task, ())
    task = but(task, reason=event.reason)
    if task.state is TaskState.RUNNING:
        return but(task, reload=Reload.FAILED), ()
    return _fail(task, order, now_s)


def _fail(task: Task, order: PodOrder, now_s: float) -> Moved:
    if task.live is not None or task.residue:
        return halt(task, Then.FAIL, order.stop_timeout, now_s)
    return move(task, GaveUp, due_s=None), ()


def _ready(task: Task, order: PodOrder, now_s: float) -> Moved:
    """All that is missing is unpacked aside: make way, then put it in place and start."""
    if task.live is not None or task.residue:
        return halt(task, Then.PLACE, order.stop_timeout, now_s)
    if task.in_place:
        return _start(move(task, PackagesPlaced), order, now_s)
    return _place(task)


def _place(task: Task) -> Moved:
    effect = PlacePackages(task=task.name, deploy=task.deploy, wanted=task.wanted, before=task.placed)
    reload = Reload.PLACING if task.state is TaskState.RUNNING else Reload.NONE
    return but(task, stale=True, reload=reload), (effect,)


def _start(task: Task, order: PodOrder, now_s: float) -> Moved:
    check = health.check_of(task.spec, order.batch)
    task = but(
        task, run=task.run + 1, live=task.spec, since_s=now_s, due_s=None, reason=None,
        health=health.begin(check, now_s),
    )  # fmt: skip
    return task, (StartProgram(task=task.name, run=task.run, spec=task.spec),)


def _ended(task: Task, event: ProgramEnded, order: PodOrder, now_s: float) -> Moved:
    stop = task.live.stop if task.live else ""
    task = but(task, live=None, last_exit=event.exit, residue=True)
    if task.state is TaskState.STOPPING:
        # A stop command spoke to the program alone; now the rest of its processes is asked, too.
        return task, (Terminate(task=task.name, run=task.run),) if stop else ()
    kill = KillTask(task=task.name, run=task.run, spare=True)
    if task.state is not TaskState.RUNNING:
        return task, (kill,)
    cancel: tuple[Effect, ...] = (CancelDeploy(task=task.name),) if task.reload is not Reload.NONE else ()
    task = but(task, reload=Reload.NONE, due_s=None)
    verdict = restart.after_exit(
        restart.rule(task.spec, order.batch), order.batch, event.exit, task.failures, now_s - task.since_s
    )
    match verdict:
        case restart.Finish():
            task = move(task, Completed, reason=None)
        case restart.GiveUp():
            tries = (
                f"; all {verdict.tries} restarts are used up" if verdict.tries else "; it is not restarted"
            )
            task = move(task, GaveUp, reason=Reason(code="exited", message=f"{event.exit}{tries}"))
        case restart.Again():
            wait = format_duration(round(verdict.delay_s, 1))
            reason = Reason(code="exited", message=f"{event.exit}; restart in {wait}")
            due_s = now_s + verdict.delay_s
            task = move(task, Crashed, failures=verdict.failures, due_s=due_s, reason=reason)
    return task, (*cancel, kill)


def _emptied(task: Task, order: PodOrder, now_s: float) -> Moved:
    task = but(task, residue=False)
    if task.state is not TaskState.STOPPING:
        return tick(task, order, now_s)  # A restart may have waited for it.
    then = task.then
    task = move(task, Emptied, due_s=None, then=Then.REST)
    match then:
        case Then.REST:
            return task, ()
        case Then.LEAVE:
            return but(task, gone=True), ()
        case Then.FAIL:
            return move(task, GaveUp), ()
        case Then.DEPLOY:
            return begin(task, order, now_s)
        case Then.PLACE:
            return _ready(move(task, Resumed), order, now_s)


def _probed(task: Task, event: Probed, order: PodOrder, now_s: float) -> Task:
    check = health.check_of(task.spec, order.batch)
    if check is None or event.probe != task.health.probe or task.state is not TaskState.RUNNING:
        return task
    state = health.answered(task.health, check, event.ok, now_s - task.since_s, now_s)
    reason = task.reason
    if task.reload is Reload.NONE:
        failing = state.verdict is False and not event.ok
        message = f"{check.type} check failed {state.failures} times: {event.detail}"
        reason = Reason(code="unhealthy", message=message) if failing else None
    return but(task, health=state, reason=reason)


def _reloaded(task: Task, event: ReloadEnded) -> Task:
    if task.reload is not Reload.COMMAND:
        return task
    if event.status == 0:
        return but(task, reload=Reload.NONE, reason=None)
    message = f"reload command failed: {event.detail or f'exit code {event.status}'}"
    return but(task, reload=Reload.FAILED, reason=Reason(code="reload-failed", message=message))
