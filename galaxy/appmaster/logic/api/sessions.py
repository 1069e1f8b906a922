"""Logs and exec: opens sessions and asks the agents of the pods to serve them."""

from __future__ import annotations

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.identity.job_authz import job_owner
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound
from galaxy.model.api.sessions import (
    ExecIn,
    ExecSession,
    LogSession,
    ReadLogs,
    SessionOpened,
    check_exec,
)
from galaxy.model.messages.names import EXEC_SESSION, LOG_SESSION, appworker_queue
from galaxy.model.step import Send
from galaxy.model.stored.job import PodPhase, PodRecord
from galaxy.model.stored.user import Authority
from galaxy.operations.declaration import Caller, change
from galaxy.suggest import did_you_mean

_ENTERABLE = (PodPhase.RUNNING, PodPhase.DRAINING, PodPhase.BACKOFF, PodPhase.DEPLOYING)
_EXPIRES_S = 30.0


@change(
    ReadLogs,
    authority=job_owner("read the logs of", lambda body, _: body.target),
    target=lambda body, _: body.target,
)
def open_logs(state: AppMasterState, body: ReadLogs, caller: Caller) -> SessionOpened:
    """Ask the agents of the target's pods to stream their logs, one session for each pod.

    A follower of a job without containers gets no session: it asks again.

    Raises:
        NotFound: no such job, pod or task. Conflict: too many pods, or none was placed yet.
    """
    every = lookup.find_pods(state, body.target)
    rows = [pod for pod in every if pod.agent]
    if not rows and body.follow and every and every[0].job in state.jobs:
        _check_task(state, every[0], body.task)
        return SessionOpened(sessions=(), pods=())
    if not rows:
        reason = next((pod.reason.message for pod in every if pod.reason), "")
        raise Conflict(
            f'"{body.target}" has no logs yet: no pod of it has a container',
            details=[reason] if reason else [],
            hint=f"galaxy job show {body.target}",
        )
    most = state.config.sessions_max
    if len(rows) > most:
        raise Conflict(
            f'"{body.target}" has {len(rows)} pods; logs of {most} at most are read at once',
            hint=f"galaxy logs {rows[0].pod}",
        )
    _check_task(state, rows[0], body.task)
    for pod in rows:
        session = LogSession(
            session=caller.secret_id(pod.pod),
            pod=pod.pod,
            read=body,
            incarnation=_incarnation(pod),
        )
        _send(state, pod, LOG_SESSION, session)
    return _opened(caller, rows)


@change(
    ExecIn,
    authority=job_owner("run commands in", lambda body, _: body.pod, authority=Authority.UPDATE_JOB),
    target=lambda body, _: body.pod,
)
def open_exec(state: AppMasterState, body: ExecIn, caller: Caller) -> SessionOpened:
    """Ask the agent of a pod to run a command in it; a job means its first running pod.

    Raises:
        NotFound: no such job, pod or task. Conflict: no program of it runs.
        UsageError: the command is too long.
    """
    check_exec(body.argv)
    every = lookup.find_pods(state, body.pod)
    rows = [pod for pod in every if pod.placed and pod.phase in _ENTERABLE and pod.incarnation]
    if not rows:
        states = ", ".join(f"{pod.pod} is {pod.phase}" for pod in every[: lookup.SHOWN_MAX])
        raise Conflict(
            f'cannot run a command in "{body.pod}": nothing of it runs', details=[states or "it has no pods"]
        )
    pod = min(rows, key=lambda row: (row.phase is not PodPhase.RUNNING, row.index))
    _check_task(state, pod, body.task)
    _send(
        state,
        pod,
        EXEC_SESSION,
        ExecSession(session=caller.secret_id(pod.pod), pod=pod.pod, exec=body),
    )
    return _opened(caller, [pod])


def _opened(caller: Caller, rows: list[PodRecord]) -> SessionOpened:
    return SessionOpened(
        sessions=tuple(caller.secret_id(pod.pod) for pod in rows),
        pods=tuple(pod.pod for pod in rows),
        incarnations=tuple(_incarnation(pod) for pod in rows),
    )


def _incarnation(pod: PodRecord) -> int:
    return pod.incarnation if pod.placed else 0


def _check_task(state: AppMasterState, pod: PodRecord, task: str) -> None:
    past = state.history.get(pod.job)
    spec = past.spec if past else state.spec(pod.job, pod.revision or pod.target)
    names = [each.name for each in spec.pod.tasks]
    if task and task not in names:
        details = did_you_mean(task, names) or [f"its tasks are {', '.join(names)}"]
        raise NotFound(f'pod "{pod.pod}" has no task "{task}"', details=details)


def _send(state: AppMasterState, pod: PodRecord, kind: str, session: LogSession | ExecSession) -> None:
    state.outbox.sends.append(
        Send(
            queue=appworker_queue(pod.agent),
            task=kind,
            body=session,
            id=f"session:{session.session}",
            expires_s=_EXPIRES_S,
        )
    )
