"""Users and their grants, as operators change them; and the audit trail, as they read it."""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.appmaster.logic.identity import quotas, secrets
from galaxy.appmaster.logic.jobs import jobs
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, Refused, UsageError
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.api.request import Request
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, SetToken, ShowUser, UserList
from galaxy.model.api.views import UserView
from galaxy.model.stored.job import OVER
from galaxy.model.stored.user import Role, UserRecord
from galaxy.units import counted

USERS_MAX: Final = 10_000
SHOWN_MAX: Final = 5
"""Jobs that an error names."""


def begin(state: AppMasterState) -> None:
    """Make the first operator, where there is one to make and no user yet; jobs in his name are his."""
    name, colon, stored = state.config.first_operator.partition(":")
    if colon and not state.users:
        state.users.put(
            name, UserRecord(user=name, role=Role.OPERATOR, stored_key=stored, created_s=state.now_s)
        )


def add(state: AppMasterState, request: Request) -> UserView:
    """Make a user; the first one must be an operator, or nobody could make another.

    Jobs may bear his name already: those run before there were users, by whoever called himself so,
    and those that a user left whom an earlier release removed. They are not his, unless he is an
    operator, who may do everything with them anyhow, or one who makes him says that they are.

    Raises:
        Conflict: there is such a user, or no room, or jobs in his name hold or want containers.
        UsageError: he would be the first, and no operator.
    """
    body: AddUser = request.body
    if body.user in state.users:
        raise Conflict(f'there is a user "{body.user}" already', hint=f"galaxy user token {body.user}")
    if not state.users and body.role is not Role.OPERATOR:
        raise UsageError(
            "the first user must be an operator", hint=f"galaxy user add {body.user} --role operator"
        )
    if len(state.users) >= USERS_MAX:
        raise Conflict(f"there are {len(state.users)} users, and no room for more")
    if body.role is not Role.OPERATOR and not body.with_jobs:
        _demand_idle(
            state,
            body.user,
            f'make user "{body.user}"',
            "in that name",
            f"if they are his own, galaxy user add {body.user} --with-jobs",
        )
        _disown(state, body.user)
    state.drop_answers_of(body.user)
    return _put(
        state,
        UserRecord(
            user=body.user,
            role=body.role,
            stored_key=body.stored_key,
            created_s=state.now_s,
            by=request.user,
        ),
    )


def remove(state: AppMasterState, request: Request) -> UserView:
    """Remove a user who has no container any more; what he leaves belongs to nobody."""
    row = _find(state, request.body.user)
    others = (other for other in state.users.values() if other.user != row.user)
    if row.role is Role.OPERATOR and not any(other.role is Role.OPERATOR for other in others):
        raise Refused(
            f'"{row.user}" is the last operator',
            details=["without one nobody could manage users"],
            hint="galaxy user add NAME --role operator first",
        )
    _demand_idle(
        state,
        row.user,
        f'remove user "{row.user}"',
        "of his",
        f"galaxy user token {row.user} locks him out meanwhile",
    )
    _disown(state, row.user)
    state.users.drop(row.user)
    quotas.forget(state, row.user)
    secrets.forget(state, row.user)
    state.drop_answers_of(row.user)
    return view(row)


def token(state: AppMasterState, request: Request) -> UserView:
    """Give a user another key; what his old token signs is refused from now on."""
    body: SetToken = request.body
    return _put(state, msgspec.structs.replace(_find(state, body.user), stored_key=body.stored_key))


def grant(state: AppMasterState, request: Request) -> UserView:
    """Change what a user may do on a pool; what he has running there stays."""
    body: GrantUser = request.body
    row = _find(state, body.user)
    if body.action != "clear" and not body.authorities:
        raise UsageError(f"no authority to {body.action}")
    had = set(row.grants.get(body.pool, ()))
    given = set(body.authorities)
    now = {"add": had | given, "remove": had - given, "set": given, "clear": set()}[body.action]
    grants = {pool: held for pool, held in row.grants.items() if pool != body.pool}
    if now:
        grants[body.pool] = tuple(sorted(now))
    return _put(state, msgspec.structs.replace(row, grants=dict(sorted(grants.items()))))


def show(state: AppMasterState, asked: ShowUser) -> UserView:
    """Return one user.

    Raises:
        NotFound: there is none of that name.
    """
    return view(_find(state, asked.user))


def list_users(state: AppMasterState, _: ListUsers) -> UserList:
    """Return all users, by name."""
    return UserList(users=tuple(view(state.users[name]) for name in sorted(state.users)))


def list_audit(state: AppMasterState, asked: ListAudit) -> AuditList:
    """Return records of who did what, and the serial of the newest there is."""
    return AuditList(records=state.audited(asked.after, asked.limit), last=state.last_audit)


def view(row: UserRecord) -> UserView:
    """Return a user without his key."""
    return UserView(user=row.user, role=row.role, created_s=row.created_s, by=row.by, grants=row.grants)


def _demand_idle(state: AppMasterState, user: str, doing: str, whose: str, otherwise: str) -> None:
    """Make sure that no job of ``user`` holds or wants a container.

    The error says that ``doing`` cannot be done, ``whose`` the jobs are, and what to do ``otherwise``.

    Raises:
        Conflict: some do; the first of them are named.
    """
    owned = [state.jobs[key] for key in state.jobs.where("user", user)]
    busy = [(job, sum(pod.placed for pod in state.job_pods(job.job))) for job in owned]
    busy = [(job, held) for job, held in busy if held or job.state not in OVER]
    if not busy:
        return
    held = sum(count for _, count in busy)
    one = len(busy) == 1
    first = sorted(busy, key=lambda pair: pair[0].name)[:SHOWN_MAX]
    more = len(busy) - len(first)
    raise Conflict(
        f"cannot {doing}: {counted(len(busy), 'job')} {whose} "
        f"{'holds or wants' if one else 'hold or want'} containers",
        details=[f"{job.name} is {job.state}, {counted(count, 'container')}" for job, count in first]
        + ([f"and {more} more; {counted(held, 'container')} in all"] if more else []),
        hint=f"galaxy job remove {first[0][0].name}{'' if one else ', and so each of them'}; {otherwise}",
    )


def _disown(state: AppMasterState, user: str) -> None:
    """Let what is in a user's name be nobody's: a namesake who comes later is somebody else."""
    for key in state.jobs.where("user", user):
        jobs.remove(state, state.put_job(msgspec.structs.replace(state.jobs[key], user="")))
    for key in [key for key in state.history if state.history[key].record.user == user]:
        past = state.history[key]
        disowned = msgspec.structs.replace(past.record, user="")
        state.history.put(key, msgspec.structs.replace(past, record=disowned))


def _put(state: AppMasterState, row: UserRecord) -> UserView:
    state.users.put(row.user, row)
    return view(row)


def _find(state: AppMasterState, name: str) -> UserRecord:
    row = state.users.get(name)
    if row is None:
        raise NotFound(f'there is no user "{name}"', hint="galaxy user list")
    return row
