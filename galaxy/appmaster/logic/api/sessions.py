"""Logs and exec: which pods, on which agents, and under which ids their bytes travel."""

from __future__ import annotations

import hashlib

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import ExecIn, ExecSession, LogSession, ReadLogs, SessionOpened
from galaxy.model.messages.names import EXEC_SESSION, LOG_SESSION, appworker_queue
from galaxy.model.step import Send
from galaxy.model.stored.job import PodPhase, PodRecord

_ENTERABLE = (PodPhase.RUNNING, PodPhase.DRAINING, PodPhase.BACKOFF, PodPhase.DEPLOYING)
_LIFE_S = 30.0


def open_logs(state: AppMasterState, request: Request, read: ReadLogs) -> SessionOpened:
    """Ask the agents of the pods that ``read`` names to stream their logs, one session a pod.

    Raises:
        NotFound: no such job, pod or task. Conflict: too many pods, or none was ever placed.
    """
    every = lookup.find_pods(state, read.target)
    rows = [pod for pod in every if pod.agent]
    if not rows:
        reason = next((pod.reason.message for pod in every if pod.reason), "")
        raise Conflict(
            f'"{read.target}" has no logs yet: no pod of it has a container',
            details=[reason] if reason else [],
            hint=f"galaxy job show {read.target}",
        )
    most = state.config.sessions_max
    if len(rows) > most:
        raise Conflict(
            f'"{read.target}" has {len(rows)} pods; logs of {most} at most are read at once',
            hint=f"galaxy logs {rows[0].pod}",
        )
    _check_task(state, rows[0], read.task)
    for pod in rows:
        session = LogSession(session=session_id(request.key, pod.pod), pod=pod.pod, read=read)
        _send(state, pod, LOG_SESSION, session)
    return _opened(request, rows)


def open_exec(state: AppMasterState, request: Request, asked: ExecIn) -> SessionOpened:
    """Ask the agent of a pod to run a command in it; a job stands for its first running pod.

    Raises:
        NotFound: no such job, pod or task. Conflict: there is no program to join.
    """
    every = lookup.find_pods(state, asked.pod)
    rows = [pod for pod in every if pod.placed and pod.phase in _ENTERABLE and pod.incarnation]
    if not rows:
        states = ", ".join(f"{pod.pod} is {pod.phase}" for pod in every[: lookup.SHOWN_MAX])
        raise Conflict(
            f'cannot run a command in "{asked.pod}": nothing of it runs', details=[states or "it has no pods"]
        )
    pod = min(rows, key=lambda row: (row.phase is not PodPhase.RUNNING, row.index))
    _check_task(state, pod, asked.task)
    _send(
        state,
        pod,
        EXEC_SESSION,
        ExecSession(session=session_id(request.key, pod.pod), pod=pod.pod, exec=asked),
    )
    return _opened(request, [pod])


def session_id(key: str, pod: str) -> str:
    """Return the id of the session that a request opens with ``pod``: as hard to guess as its key."""
    return hashlib.blake2b(f"{key}\x1f{pod}".encode(), digest_size=16).hexdigest()


def _opened(request: Request, rows: list[PodRecord]) -> SessionOpened:
    return SessionOpened(
        sessions=tuple(session_id(request.key, pod.pod) for pod in rows), pods=tuple(pod.pod for pod in rows)
    )


def _check_task(state: AppMasterState, pod: PodRecord, task: str) -> None:
    past = state.history.get(pod.job)
    spec = past.spec if past else state.spec(pod.job, pod.revision or pod.target)
    names = [each.name for each in spec.pod.tasks]
    if task and task not in names:
        details = lookup.near_misses(task, names) or [f"its tasks are {', '.join(names)}"]
        raise NotFound(f'pod "{pod.pod}" has no task "{task}"', details=details)


def _send(state: AppMasterState, pod: PodRecord, kind: str, session: LogSession | ExecSession) -> None:
    state.sends.append(
        Send(
            queue=appworker_queue(pod.agent),
            task=kind,
            body=session,
            id=f"session:{session.session}",
            expires_s=_LIFE_S,
        )
    )
