"""What each request takes: which grant, whose job; and what a reader gets to see."""

from __future__ import annotations

from typing import Any

import msgspec

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.identity import authn
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.jobs import JobList, RecoverPod, RemoveJob, StartJob, StopJob, SubmitJob, UpdateJob
from galaxy.model.api.quotas import ListQuotas, QuotaList, SetQuota
from galaxy.model.api.request import Request
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SetSecret
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.api.users import GrantUser, SetToken, ShowUser
from galaxy.model.api.views import JobView
from galaxy.model.stored.job import HistoryRecord, JobRecord
from galaxy.model.stored.user import Authority, UserRecord

HIDDEN = "(hidden)"
_OPERATORS = (
    "galaxy.user.add",
    "galaxy.user.remove",
    "galaxy.user.grant",
    "galaxy.user.list",
    "galaxy.audit.list",
    "galaxy.quota.set",
)
_OWN = ("galaxy.user.show", "galaxy.user.token")


def change(state: AppMasterState, user: UserRecord | None, request: Request) -> None:
    """Make sure that ``user`` may make this change.

    Raises:
        Refused: he may not. NotFound, Conflict: what it is about is not there, or not clear.
    """
    if user is None or authn.is_operator(user):
        return
    _users(user, request)
    match request.body:
        case SubmitJob(spec=spec):
            authn.demand(user, Authority.SUBMIT_JOB, spec.deploy.pools, f'run "{spec.name}"')
            for key in state.jobs.where("name", spec.name):  # A finished one makes way for it.
                authn.demand_owner(user, state.jobs[key].user, spec.name, "take the name of")
        case UpdateJob(job=text, spec=spec):
            _job(state, user, text, Authority.UPDATE_JOB, "update")
            authn.demand(user, Authority.UPDATE_JOB, spec.deploy.pools, f'update "{spec.name}"')
        case RemoveJob(job=text):
            _job(state, user, text, Authority.REMOVE_JOB, "remove")
        case StopJob(job=text) | StartJob(job=text):
            _job(state, user, text, Authority.UPDATE_JOB, request.op.rpartition(".")[2])
        case RecoverPod(job=job, pod=pod):
            _job(state, user, pod or job, Authority.UPDATE_JOB, "recover")
        case ExecIn(pod=pod):
            _job(state, user, pod, Authority.UPDATE_JOB, "run commands in")
        case ReadLogs(target=target):
            _job(state, user, target, None, "read the logs of")


def read(state: AppMasterState, user: UserRecord | None, request: Request) -> None:
    """Make sure that ``user`` may ask this.

    Raises:
        Refused: he may not.
    """
    if user is None or authn.is_operator(user):
        return
    _users(user, request)
    if request.op == "galaxy.job.show":
        found = lookup.find_any(state, request.body.job)
        owner = _owner(found)
        if owner != user.user and not authn.may(user, Authority.LIST_JOB, _pools(state, found)):
            authn.demand_owner(user, owner, request.body.job, "see")


def scope(user: UserRecord | None, request: Request) -> Any:
    """Return what is asked, about the user's own where he names nobody."""
    match request.body:
        case ListSecrets(user="", all=False):
            return ListSecrets(user=request.user)
        case ListQuotas(user="") if not authn.is_operator(user):
            return ListQuotas(user=request.user)
    return request.body


def visible(state: AppMasterState, user: UserRecord | None, result: Any) -> Any:
    """Return of ``result`` what ``user`` may see: jobs in his pools, no environment but of his own."""
    if user is None or authn.is_operator(user):
        return result
    if isinstance(result, JobList):
        return JobList(
            jobs=tuple(
                line
                for line in result.jobs
                if line.user == user.user
                or authn.may(user, Authority.LIST_JOB, _pools(state, lookup.find_any(state, line.job)))
            )
        )
    if isinstance(result, QuotaList):
        return QuotaList(quotas=tuple(row for row in result.quotas if row.user == user.user))
    if isinstance(result, JobView) and result.summary.user != user.user:
        tasks = tuple(
            msgspec.structs.replace(task, env=dict.fromkeys(task.env, HIDDEN))
            for task in result.spec.pod.tasks
        )
        pod = msgspec.structs.replace(result.spec.pod, tasks=tasks)
        return msgspec.structs.replace(result, spec=msgspec.structs.replace(result.spec, pod=pod))
    return result


def target_of(request: Request) -> str:
    """Return what a change is about, for the audit trail: a job, a pod or a user."""
    match request.body:
        case SubmitJob(spec=spec):
            return spec.name
        case UpdateJob(job=text) | StopJob(job=text) | StartJob(job=text) | RemoveJob(job=text):
            return text
        case RecoverPod(job=job, pod=pod):
            return pod or job
        case ExecIn(pod=pod):
            return pod
        case SetSecret(name=name, user=user) | RemoveSecret(name=name, user=user):
            return f"{name} of {user or request.user}"
        case SetQuota(user=user, pool=pool):
            return f"{user} on {pool}"
        case ReadLogs(target=target):
            return target
        case GrantUser(user=name, pool=pool):
            return f"{name} on {pool}"
    return str(getattr(request.body, "user", ""))


def _users(user: UserRecord, request: Request) -> None:
    if request.op in _OPERATORS:
        authn.demand_operator(user, f"ask {request.op}")
    match request.body:
        case ShowUser(user=name) | SetToken(user=name) if request.op in _OWN and name != user.user:
            authn.demand_operator(user, f'ask {request.op} of "{name}"')
        case SetSecret(user=name) | RemoveSecret(user=name) if name not in ("", user.user):
            authn.demand_operator(user, f'ask {request.op} of "{name}"')
        case ListSecrets(user=name, all=everybody) if everybody or name not in ("", user.user):
            authn.demand_operator(user, f'ask {request.op} of "{name or "everybody"}"')
        case ListQuotas(user=name) if name not in ("", user.user):
            authn.demand_operator(user, f'ask {request.op} of "{name}"')


def _job(state: AppMasterState, user: UserRecord, text: str, authority: Authority | None, doing: str) -> None:
    """Make sure that a job, or the job of a pod, is the user's and that he has the grant."""
    head, dot, index = text.rpartition(".")
    found = lookup.find_any(state, head if dot and index.isdecimal() else text)
    authn.demand_owner(user, _owner(found), text, doing)
    if authority is not None:
        authn.demand(user, authority, _pools(state, found), f'{doing} "{text}"')


def _owner(found: JobRecord | HistoryRecord) -> str:
    return found.record.user if isinstance(found, HistoryRecord) else found.user


def _pools(state: AppMasterState, found: JobRecord | HistoryRecord) -> tuple[str, ...]:
    spec = found.spec if isinstance(found, HistoryRecord) else state.spec(found.job, found.revision)
    return spec.deploy.pools
