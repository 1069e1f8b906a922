"""One task's reactions: (task, event) to (task, effects)."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.model.messages.container import HOST_FAILED, Reason
from galaxy.model.messages.pod import OomKills, PodOrder, TaskState
from galaxy.units import format_duration
from galaxy.worker_entry.logic import health, restart
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    Effect,
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
    Completed,
    Crashed,
    DeployBegan,
    DeployFailed,
    DeployResumed,
    GaveUp,
    PackagesPlaced,
    PackagesStaged,
    ProbeAnswered,
    ProcessesOomKilled,
    ProgramEnded,
    ProgramStarted,
    ReloadEnded,
    Restarted,
    StopBegan,
    StopCommandEnded,
    TaskEmptied,
    TaskEvent,
)
from galaxy.worker_entry.logic.records import AfterStop, ReloadPhase, SupervisedTask
from galaxy.worker_entry.logic.transitions import move

TaskStep = tuple[SupervisedTask, tuple[Effect, ...]]
"""A task after an event, and the effects to carry out."""

HOST_TRIES: Final = 3
"""Failures in a row for which the host may be the cause, after which the pod may try another host."""
_KEEPS_EXECS: Final = (AfterStop.PLACE, AfterStop.DEPLOY, AfterStop.FAIL)
"""Stops that leave ``exec`` commands running: the program is replaced or failed, the task stays."""


# ---- orders


def begin(task: SupervisedTask, order: PodOrder, now_s: float, *, failures: int = 0) -> TaskStep:
    """Deploy the task and start it. A program of an earlier spec runs on until the packages are staged."""
    task = move(
        task,
        DeployBegan,
        deploy=task.deploy + 1,
        failures=failures,
        due_s=None,
        reason=None,
        reload=ReloadPhase.NONE,
    )
    if task.missing:
        return task, (_stage(task),)
    return _on_all_staged(task, order, now_s)


def begin_reload(task: SupervisedTask) -> TaskStep:
    """Deploy new data for the running program, then run its reload command."""
    task = replace(
        task, deploy=task.deploy + 1, failures=0, due_s=None, reload=ReloadPhase.STAGING, reason=None
    )
    if not task.missing:
        return _place(task)
    return task, (_stage(task),)


def stop(task: SupervisedTask, after_stop: AfterStop, stop_timeout_s: float, now_s: float) -> TaskStep:
    """Stop every process of the task within ``stop_timeout_s``, then do ``after_stop``."""
    kill_s = now_s + stop_timeout_s
    if task.state is TaskState.STOPPING:
        due_s = None if task.due_s is None else min(task.due_s, kill_s)
        place_dropped = task.after_stop is AfterStop.PLACE and after_stop is not AfterStop.PLACE
        cancel: tuple[Effect, ...] = (CancelDeploy(task=task.name),) if place_dropped else ()
        return replace(task, after_stop=after_stop, due_s=due_s), cancel
    deploying = task.state is TaskState.DEPLOYING or task.reload is not ReloadPhase.NONE
    cancel = (CancelDeploy(task=task.name),) if deploying and after_stop is not AfterStop.PLACE else ()
    reason = task.reason if after_stop is AfterStop.FAIL else None
    task = move(task, StopBegan, after_stop=after_stop, due_s=kill_s, reload=ReloadPhase.NONE, reason=reason)
    keep_execs = after_stop in _KEEPS_EXECS
    if task.running_spec is not None:
        request = StopProgram(
            task=task.name,
            run=task.run,
            spec=task.running_spec,
            timeout_s=stop_timeout_s,
            keep_execs=keep_execs,
        )
        return task, (*cancel, request)
    # No program runs: kill what an earlier one left behind, and exec commands unless they are kept.
    kill = KillTask(task=task.name, run=task.run, keep_execs=keep_execs)
    return replace(task, has_leftovers=True), (*cancel, kill)


# ---- time


def tick(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    """Do what is due: a restart, the next try to deploy, the kill after a stop, a health probe."""
    if task.state is TaskState.RUNNING:
        return _tick_running(task, order, now_s)
    if task.due_s is None or task.due_s > now_s:
        return task, ()
    if task.state is TaskState.BACKOFF:
        if task.has_leftovers:
            return task, ()
        task = replace(task, restarts=task.restarts + 1, due_s=None)
        if not task.packages_in_place:
            return begin(task, order, now_s, failures=task.failures)
        return _start(move(task, Restarted), order, now_s)
    task = replace(task, due_s=None)
    if task.state is TaskState.STOPPING:
        kill = KillTask(task=task.name, run=task.run, keep_execs=task.after_stop in _KEEPS_EXECS)
        return replace(task, has_leftovers=True), (kill,)
    if task.state is TaskState.DEPLOYING:
        task = replace(task, deploy=task.deploy + 1)
        if not task.missing:
            return _on_all_staged(task, order, now_s)
        return task, (_stage(task),)
    return task, ()


def due(task: SupervisedTask) -> float | None:
    """Return when ``tick`` next has something to do, or None if not before another event."""
    if task.state is TaskState.BACKOFF and task.has_leftovers:
        return None
    times = [task.due_s, task.health.due_s if task.state is TaskState.RUNNING else None]
    return min((time for time in times if time is not None), default=None)


def _tick_running(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    effects: list[Effect] = []
    if task.reload is ReloadPhase.WAITING and task.due_s is not None and task.due_s <= now_s:
        task = replace(task, deploy=task.deploy + 1, due_s=None, reload=ReloadPhase.STAGING)
        effects.append(_stage(task))
    state = task.health
    if state.due_s is not None and state.due_s <= now_s:
        check = health.check_of(task.spec, batch=order.batch)
        if check is None:
            return replace(task, health=replace(state, verdict=True, due_s=None)), tuple(effects)
        state = replace(state, probe=state.probe + 1, due_s=None)
        task = replace(task, health=state)
        effects.append(RunProbe(task=task.name, run=task.run, probe=state.probe, check=check))
    return task, tuple(effects)


# ---- outcomes of effects


def apply(task: SupervisedTask, event: TaskEvent, order: PodOrder, now_s: float) -> TaskStep:
    """Return the task after ``event``. A stale event, of an earlier run or deployment, changes nothing."""
    match event:
        case PackagesStaged() | PackagesPlaced() | DeployFailed():
            return (task, ()) if event.deploy != task.deploy else _on_deploy_event(task, event, order, now_s)
        case TaskEmptied():
            current = event.run == task.run and task.running_spec is None
            return _on_emptied(task, order, now_s) if current else (task, ())
        case ProcessesOomKilled():
            before = task.oom_kills.count if task.oom_kills else 0
            kills = OomKills(count=before + event.count, at_s=event.at_s, processes=event.processes)
            return replace(task, oom_kills=kills), ()
    if event.run != task.run or task.running_spec is None:
        return task, ()
    match event:
        case ProgramStarted():
            return replace(task, started_s=event.at_s), ()
        case ProgramEnded():
            return _on_program_ended(task, event, order, now_s)
        case ProbeAnswered():
            return _on_probe_answered(task, event, order, now_s), ()
        case StopCommandEnded():
            failed = task.state is TaskState.STOPPING and event.status != 0
            return task, (TerminateTask(task=task.name, run=task.run),) if failed else ()
        case ReloadEnded():
            return _on_reload_ended(task, event), ()


def _on_deploy_event(
    task: SupervisedTask, event: PackagesStaged | PackagesPlaced | DeployFailed, order: PodOrder, now_s: float
) -> TaskStep:
    if isinstance(event, PackagesPlaced):
        task = replace(task, placed=task.required, placed_unreliable=False)
    reloading = task.state is TaskState.RUNNING and task.reload is not ReloadPhase.NONE
    if task.state is not TaskState.DEPLOYING and not reloading:
        return task, ()
    match event:
        case PackagesStaged():
            return _place(task) if reloading else _on_all_staged(task, order, now_s)
        case PackagesPlaced() if reloading:
            command = task.spec.data.reload if task.spec.data else ""
            task = replace(task, reload=ReloadPhase.COMMAND, failures=0)
            return task, (RunReload(task=task.name, run=task.run, command=command),)
        case PackagesPlaced():
            return _start(move(task, PackagesPlaced), order, now_s)
        case DeployFailed():
            return _on_deploy_failed(task, event, order, now_s)


def _on_deploy_failed(task: SupervisedTask, event: DeployFailed, order: PodOrder, now_s: float) -> TaskStep:
    policy = restart.policy_of(task.spec, batch=order.batch)
    decision = restart.decide_after_failed_deploy(policy, task.failures)
    if event.retry and isinstance(decision, restart.RetryAfter):
        wait = format_duration(round(decision.delay_s, 1))
        # A program that still runs is kept: moving the pod to another host would end it.
        leave = event.elsewhere and task.running_spec is None and decision.failures >= HOST_TRIES
        code = HOST_FAILED if leave else event.reason.code
        reason = replace(event.reason, code=code, message=f"{event.reason.message}; next try in {wait}")
        task = replace(task, failures=decision.failures, due_s=now_s + decision.delay_s, reason=reason)
        if task.state is TaskState.RUNNING:
            task = replace(task, reload=ReloadPhase.WAITING)
        return task, ()
    code = HOST_FAILED if event.elsewhere else event.reason.code
    task = replace(task, reason=replace(event.reason, code=code))
    if task.state is TaskState.RUNNING:
        return replace(task, reload=ReloadPhase.FAILED), ()
    if task.running_spec is not None or task.has_leftovers:
        return stop(task, AfterStop.FAIL, order.stop_timeout, now_s)
    return move(task, GaveUp, due_s=None), ()


def _on_program_ended(task: SupervisedTask, event: ProgramEnded, order: PodOrder, now_s: float) -> TaskStep:
    stop_command = task.running_spec.stop if task.running_spec else ""
    task = replace(task, running_spec=None, last_exit=event.exit, has_leftovers=True)
    if task.state is TaskState.STOPPING:
        # The stop command addressed the program alone; its other processes get SIGTERM now.
        return task, (TerminateTask(task=task.name, run=task.run),) if stop_command else ()
    kill = KillTask(task=task.name, run=task.run, keep_execs=True)
    if task.state is not TaskState.RUNNING:
        return task, (kill,)
    reloading = task.reload is not ReloadPhase.NONE
    cancel: tuple[Effect, ...] = (CancelDeploy(task=task.name),) if reloading else ()
    task = replace(task, reload=ReloadPhase.NONE, due_s=None)
    decision = restart.decide_after_exit(
        restart.policy_of(task.spec, batch=order.batch),
        event.exit,
        batch=order.batch,
        failures=task.failures,
        uptime_s=now_s - task.run_began_s,
    )
    match decision:
        case restart.Complete():
            task = move(task, Completed, reason=None)
        case restart.GiveUp():
            retries = decision.retries
            why = f"; all {retries} restarts are used up" if retries else "; it is not restarted"
            code = HOST_FAILED if event.exit.cause else "exited"
            task = move(task, GaveUp, reason=Reason(code=code, message=f"{event.exit}{why}"))
        case restart.RetryAfter():
            wait = format_duration(round(decision.delay_s, 1))
            reason = Reason(code="exited", message=f"{event.exit}; restart in {wait}")
            due_s = now_s + decision.delay_s
            task = move(task, Crashed, failures=decision.failures, due_s=due_s, reason=reason)
    return task, (*cancel, kill)


def _on_emptied(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    task = replace(task, has_leftovers=False)
    if task.state is not TaskState.STOPPING:
        return tick(task, order, now_s)  # A restart that is due waits until the task is empty.
    after_stop = task.after_stop
    task = move(task, TaskEmptied, due_s=None, after_stop=AfterStop.STAY_STOPPED)
    match after_stop:
        case AfterStop.STAY_STOPPED:
            return task, ()
        case AfterStop.REMOVE:
            return replace(task, removed=True), ()
        case AfterStop.FAIL:
            return move(task, GaveUp), ()
        case AfterStop.DEPLOY:
            return begin(task, order, now_s)
        case AfterStop.PLACE:
            return _on_all_staged(move(task, DeployResumed), order, now_s)


def _on_probe_answered(
    task: SupervisedTask, event: ProbeAnswered, order: PodOrder, now_s: float
) -> SupervisedTask:
    check = health.check_of(task.spec, batch=order.batch)
    if check is None or event.probe != task.health.probe or task.state is not TaskState.RUNNING:
        return task
    state = health.after_answer(
        task.health, check, ok=event.ok, uptime_s=now_s - task.run_began_s, now_s=now_s
    )
    reason = task.reason
    if task.reload is ReloadPhase.NONE:
        failing = state.verdict is False and not event.ok
        message = f"{check.type} check failed {state.failures} times: {event.detail}"
        reason = Reason(code="unhealthy", message=message) if failing else None
    return replace(task, health=state, reason=reason)


def _on_reload_ended(task: SupervisedTask, event: ReloadEnded) -> SupervisedTask:
    if task.reload is not ReloadPhase.COMMAND:
        return task
    if event.status == 0:
        return replace(task, reload=ReloadPhase.NONE, reason=None)
    message = f"reload command failed: {event.detail or f'exit code {event.status}'}"
    reason = Reason(code="reload-failed", message=message)
    return replace(task, reload=ReloadPhase.FAILED, reason=reason)


# ---- steps of a deployment


def _stage(task: SupervisedTask) -> StagePackages:
    return StagePackages(task=task.name, deploy=task.deploy, packages=task.missing)


def _on_all_staged(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    """Everything missing is staged: stop what still runs, place the packages, and start the program."""
    if task.running_spec is not None or task.has_leftovers:
        return stop(task, AfterStop.PLACE, order.stop_timeout, now_s)
    if task.packages_in_place:
        return _start(move(task, PackagesPlaced), order, now_s)
    return _place(task)


def _place(task: SupervisedTask) -> TaskStep:
    effect = PlacePackages(task=task.name, deploy=task.deploy, required=task.required, before=task.placed)
    reload = ReloadPhase.PLACING if task.state is TaskState.RUNNING else ReloadPhase.NONE
    return replace(task, placed_unreliable=True, reload=reload), (effect,)


def _start(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    check = health.check_of(task.spec, batch=order.batch)
    task = replace(
        task,
        run=task.run + 1,
        running_spec=task.spec,
        run_began_s=now_s,
        due_s=None,
        reason=None,
        health=health.begin(check, now_s),
    )
    program = StartProgram(
        task=task.name, run=task.run, spec=task.spec, revision=order.revision, restarts=task.restarts
    )
    return task, (program,)
