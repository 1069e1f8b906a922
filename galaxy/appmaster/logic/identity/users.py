"""Users and their grants, and the jobs, quotas and secrets of a removed user."""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.appmaster.logic.api import packages
from galaxy.appmaster.logic.identity import identity_sync, quotas, secrets
from galaxy.appmaster.logic.jobs import jobs
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, Refused, UsageError
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, RemoveUser, SetToken, ShowUser, UserList
from galaxy.model.api.views import UserView
from galaxy.model.stored.user import Role, UserRecord
from galaxy.operations.authz import OPERATORS, SELF
from galaxy.operations.declaration import Caller, change, query
from galaxy.operations.paging import page_of
from galaxy.units import counted

USERS_MAX: Final = 10_000
SHOWN_MAX: Final = 5
"""Jobs that an error names."""


def begin(state: AppMasterState) -> None:
    """Create the first operator if one is configured and there is no user yet.

    Existing jobs in the operator's name belong to the operator.
    """
    name, colon, stored = state.config.first_operator.partition(":")
    if colon and not state.users:
        state.users.put(
            name, UserRecord(user=name, role=Role.OPERATOR, stored_key=stored, created_s=state.now_s)
        )


def _user_name(body: AddUser | RemoveUser | SetToken, _: Caller) -> str:
    return body.user


@change(AddUser, authority=OPERATORS, target=_user_name)
def add_user(state: AppMasterState, body: AddUser, caller: Caller) -> UserView:
    """Add a user. The first user must be an operator, because only operators can add others.

    Jobs may have this name already: they were run before there were users, under an unproven name. A new
    user who is not an operator gets them only with ``with_jobs``. An operator gets them, because operators
    may do everything with any job.

    Raises:
        Conflict: the user exists, there is no room, or jobs in this name hold or want containers.
        UsageError: the first user would not be an operator.
    """
    if body.user in state.users:
        raise Conflict(f'there is a user "{body.user}" already', hint=f"galaxy user token {body.user}")
    if not state.users and body.role is not Role.OPERATOR:
        raise UsageError(
            "the first user must be an operator", hint=f"galaxy user add {body.user} --role operator"
        )
    if len(state.users) >= USERS_MAX:
        raise Conflict(f"there are {len(state.users)} users, and no room for more")
    if body.role is not Role.OPERATOR and not body.with_jobs:
        _require_idle(
            state,
            body.user,
            f'add user "{body.user}"',
            "in that name",
            f"if they are this user's, galaxy user add {body.user} --with-jobs",
        )
        _disown(state, body.user)
    state.requests.drop_answers_to(body.user)
    return _put(
        state,
        UserRecord(
            user=body.user,
            role=body.role,
            stored_key=body.stored_key,
            created_s=state.now_s,
            by=caller.name,
        ),
    )


@change(RemoveUser, authority=OPERATORS, target=_user_name)
def remove_user(state: AppMasterState, body: RemoveUser, _: Caller) -> UserView:
    """Remove a user who has no containers. Their jobs in the history belong to no user from then on.

    Raises:
        Refused: it is the last operator. Conflict: a job of the user holds or wants containers.
    """
    row = _find(state, body.user)
    others = (other for other in state.users.values() if other.user != row.user)
    if row.role is Role.OPERATOR and not any(other.role is Role.OPERATOR for other in others):
        raise Refused(
            f'"{row.user}" is the last operator',
            details=["only operators can manage users"],
            hint="galaxy user add NAME --role operator first",
        )
    _require_idle(
        state,
        row.user,
        f'remove user "{row.user}"',
        "of this user",
        f"galaxy user token {row.user} locks the user out meanwhile",
    )
    _disown(state, row.user)
    _drop(state, row)
    quotas.lift_all(state, row.user)
    secrets.drop_all(state, row.user)
    state.requests.drop_answers_to(row.user)
    return view(row)


@change(SetToken, authority=SELF, target=_user_name)
def set_token(state: AppMasterState, body: SetToken, _: Caller) -> UserView:
    """Give a user another key; requests signed with the old token are refused from now on."""
    return _put(state, msgspec.structs.replace(_find(state, body.user), stored_key=body.stored_key))


@change(GrantUser, authority=OPERATORS, target=lambda body, _: f"{body.user} on {body.pool}")
def grant_user(state: AppMasterState, body: GrantUser, _: Caller) -> UserView:
    """Change what a user may do on a pool; jobs that run there stay."""
    row = _find(state, body.user)
    if body.action != "clear" and not body.authorities:
        raise UsageError(f"no authority to {body.action}")
    before = set(row.grants.get(body.pool, ()))
    given = set(body.authorities)
    now = {"add": before | given, "remove": before - given, "set": given, "clear": set()}[body.action]
    grants = {pool: granted for pool, granted in row.grants.items() if pool != body.pool}
    if now:
        grants[body.pool] = tuple(sorted(now))
    return _put(state, msgspec.structs.replace(row, grants=dict(sorted(grants.items()))))


@query(ShowUser, authority=SELF)
def show_user(state: AppMasterState, body: ShowUser, _: Caller) -> UserView:
    """Return one user.

    Raises:
        NotFound: there is none of that name.
    """
    return view(_find(state, body.user))


@query(ListUsers, authority=OPERATORS)
def list_users(state: AppMasterState, body: ListUsers, _: Caller) -> UserList:
    """Return all users, by name."""
    page, after = page_of(state.users.values(), lambda row: (row.user,), body)
    return UserList(users=tuple(view(row) for row in page), next=after)


def view(row: UserRecord) -> UserView:
    """Return a user without the key."""
    return UserView(user=row.user, role=row.role, created_s=row.created_s, by=row.by, grants=row.grants)


def _require_idle(state: AppMasterState, user: str, doing: str, whose: str, otherwise: str) -> None:
    """Make sure that no job of ``user`` has or waits for a container.

    The last three arguments are parts of the message: the action, whose jobs they are, and another way.

    Raises:
        Conflict: names the first of the jobs that do.
    """
    owned = [state.jobs[key] for key in state.jobs.where("user", user)]
    busy = [(job, sum(pod.placed for pod in state.job_pods(job.job))) for job in owned]
    busy = [(job, containers) for job, containers in busy if containers or not job.state.is_over]
    if not busy:
        return
    total = sum(containers for _, containers in busy)
    one = len(busy) == 1
    first = sorted(busy, key=lambda pair: pair[0].name)[:SHOWN_MAX]
    more = len(busy) - len(first)
    raise Conflict(
        f"cannot {doing}: {counted(len(busy), 'job')} {whose} "
        f"{'holds or wants' if one else 'hold or want'} containers",
        details=[
            f"{job.name} is {job.state}, {counted(containers, 'container')}" for job, containers in first
        ]
        + ([f"and {more} more; {counted(total, 'container')} in all"] if more else []),
        hint=f"galaxy job remove {first[0][0].name}{'' if one else ', and so each of them'}; {otherwise}",
    )


def _disown(state: AppMasterState, user: str) -> None:
    """Take a user's name from all finished jobs, because a later user of that name is another person."""
    for key in state.jobs.where("user", user):
        jobs.remove(state, state.put_job(msgspec.structs.replace(state.jobs[key], user="")))
    for key in [key for key in state.history if state.history[key].record.user == user]:
        past = state.history[key]
        disowned = msgspec.structs.replace(past.record, user="")
        state.history.put(key, msgspec.structs.replace(past, record=disowned))
    packages.disown(state, user)


def _put(state: AppMasterState, row: UserRecord) -> UserView:
    old = state.users.get(row.user)
    state.users.put(row.user, row)
    if old is None or (old.role, old.stored_key) != (row.role, row.stored_key):
        identity_sync.changed(state)
    return view(row)


def _drop(state: AppMasterState, row: UserRecord) -> None:
    state.users.drop(row.user)
    identity_sync.changed(state)


def _find(state: AppMasterState, name: str) -> UserRecord:
    row = state.users.get(name)
    if row is None:
        raise NotFound(f'there is no user "{name}"', hint="galaxy user list")
    return row
