"""Authority rules about jobs: required grants and ownership, and what other users cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Refused
from galaxy.model.api.jobs import ShowJob, SubmitJob, UpdateJob
from galaxy.model.jobspec.spec import JobSpec, PackageSpec, TaskSpec
from galaxy.model.redaction import source_without_credentials, without_credentials
from galaxy.model.stored.job import HistoryRecord, JobRecord
from galaxy.model.stored.secret import EnvFrom
from galaxy.model.stored.user import Authority, UserRecord
from galaxy.operations.authz import is_allowed, is_operator, require_authority, require_owner
from galaxy.operations.declaration import AuthorityRule, Caller

HIDDEN: Final = "(hidden)"

JobRule = AuthorityRule[AppMasterState, Any]


def job_owner(
    doing: str, named: Callable[[Any, Caller], str], *, authority: Authority | None = None
) -> JobRule:
    """Return the rule that the caller owns the job, or the pod's job, whose name ``named`` returns.

    With ``authority``, the caller also needs that grant on the pools of the job. ``doing`` is the action in
    the message of a refusal.
    """

    def require(state: AppMasterState, body: Any, caller: Caller) -> None:
        _require_job(state, caller.user, named(body, caller), authority, doing)

    needs = f", with `{authority}` on its pools" if authority else ""
    return AuthorityRule(documented=f"the job's owner{needs}", require=require)


def _require_submit(state: AppMasterState, body: SubmitJob, caller: Caller) -> None:
    spec = body.spec
    require_authority(caller.user, Authority.SUBMIT_JOB, spec.deploy.pools, f'run "{spec.name}"')
    for key in state.jobs.where("name", spec.name):  # A finished job of this name would be removed.
        require_owner(caller.user, state.jobs[key].user, spec.name, "take the name of")


def _require_update(state: AppMasterState, body: UpdateJob, caller: Caller) -> None:
    spec = body.spec
    _require_job(state, caller.user, body.job, Authority.UPDATE_JOB, "update")
    require_authority(caller.user, Authority.UPDATE_JOB, spec.deploy.pools, f'update "{spec.name}"')


def _require_show(state: AppMasterState, body: ShowJob, caller: Caller) -> None:
    found = lookup.find_any(state, body.job)
    if not can_list(state, caller.user, found):
        require_owner(caller.user, _owner(found), body.job, "see")


def _filtered(_: AppMasterState, __: Any, ___: Caller) -> None:
    """Allow every caller: the operation leaves out what the caller may not see."""


SUBMIT: Final[JobRule] = AuthorityRule(
    documented="any user with `submit_job` on the job's pools", require=_require_submit
)
UPDATE: Final[JobRule] = AuthorityRule(
    documented="the job's owner, with `update_job` on its old and new pools", require=_require_update
)
SHOW: Final[JobRule] = AuthorityRule(
    documented="the job's owner; with `list_job` on one of its pools others too, without secrets",
    require=_require_show,
)
LIST: Final[JobRule] = AuthorityRule(
    documented="any user: own jobs, and those that may run in a pool with `list_job`", require=_filtered
)


def can_list(state: AppMasterState, user: UserRecord | None, found: JobRecord | HistoryRecord) -> bool:
    """Return whether ``user`` may see the job in lists, with its state.

    A job may be seen in each of its pools; one that names no pool may run in every pool.
    """
    if is_operator(user) or user is None or _owner(found) == user.user:
        return True
    pools = _pools(state, found) or user.grants
    return any(is_allowed(user, Authority.LIST_JOB, (pool,)) for pool in pools)


def spec_for(user: UserRecord | None, owner: str, spec: JobSpec) -> JobSpec:
    """Return what ``user`` sees of the spec of a job of ``owner``.

    Nobody sees credentials in URLs; ``require_submitted`` guards the exception. Users who are neither the
    owner nor operators see no values of the environment and no commands either: both often carry secrets.
    """
    is_other = not (is_operator(user) or (user is not None and user.user == owner))
    tasks = tuple(_hidden(task, is_other=is_other) for task in spec.pod.tasks)
    return msgspec.structs.replace(spec, pod=msgspec.structs.replace(spec.pod, tasks=tasks))


def require_submitted(user: UserRecord | None, owner: str, job: str) -> None:
    """Make sure that ``user`` may see a spec as it was submitted, credentials included: the owner only.

    Raises:
        Refused: another user, also an operator.
    """
    if user is not None and user.user != owner:
        raise Refused(
            f'user "{user.user}" may not see the spec of "{job}" as it was submitted',
            details=[
                f'it may hold credentials, and belongs to "{owner}"' if owner else "it belongs to nobody"
            ],
            hint=f"galaxy job show {job} -o json has everything else",
        )


def _hidden(task: TaskSpec, *, is_other: bool) -> TaskSpec:
    data = task.data
    if data is not None:
        data = msgspec.structs.replace(
            data,
            packages=tuple(_without_login(package) for package in data.packages),
            reload=_command(data.reload, is_other=is_other),
        )
    health = task.health
    if health is not None:
        health = msgspec.structs.replace(
            health,
            path=_path_without_query(health.path) if is_other else health.path,
            command=_command(health.command, is_other=is_other),
        )
    return msgspec.structs.replace(
        task,
        package=_without_login(task.package) if task.package else None,
        data=data,
        health=health,
        env={name: _variable(value, is_other=is_other) for name, value in task.env.items()},
        start=_command(task.start, is_other=is_other),
        stop=_command(task.stop, is_other=is_other),
    )


def _without_login(package: PackageSpec) -> PackageSpec:
    return msgspec.structs.replace(
        package,
        source=source_without_credentials(package.source),
        version=without_credentials(package.version),
        path=without_credentials(package.path),
    )


def _variable(value: str | EnvFrom, *, is_other: bool) -> str | EnvFrom:
    if is_other:
        return HIDDEN
    return without_credentials(value) if isinstance(value, str) else value


def _command(command: str, *, is_other: bool) -> str:
    """Return a command without credentials in URLs; other users see only that there is one."""
    return HIDDEN if command and is_other else without_credentials(command)


def _path_without_query(path: str) -> str:
    return without_credentials(f"http://host{path}").removeprefix("http://host")


def _require_job(
    state: AppMasterState, user: UserRecord | None, text: str, authority: Authority | None, doing: str
) -> None:
    """Make sure that ``user`` owns a job, or the job of a pod, and has ``authority`` on its pools."""
    head, dot, index = text.rpartition(".")
    found = lookup.find_any(state, head if dot and index.isdecimal() else text)
    require_owner(user, _owner(found), text, doing)
    if authority is not None:
        require_authority(user, authority, _pools(state, found), f'{doing} "{text}"')


def _owner(found: JobRecord | HistoryRecord) -> str:
    return found.record.user if isinstance(found, HistoryRecord) else found.user


def _pools(state: AppMasterState, found: JobRecord | HistoryRecord) -> tuple[str, ...]:
    spec = found.spec if isinstance(found, HistoryRecord) else state.spec(found.job, found.revision)
    return spec.deploy.pools
