"""Named secrets, and the values of secrets and files in each revision of a job.

The values of a revision are fixed when it is accepted: the same order always carries the same
values, and a new value takes effect only through an update, pod by pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from galaxy.appmaster.logic import uses
from galaxy.appmaster.logic.identity.resolve_env import resolve_env
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, SpecError
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SecretList, SetSecret
from galaxy.model.api.views import SecretView
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.rules import oversize
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import SECRET_BYTES_MAX, SECRETS_MAX, EnvFrom, Secret, SecretRecord
from galaxy.operations.authz import SELF
from galaxy.operations.declaration import Caller, change, query
from galaxy.operations.paging import page_of
from galaxy.units import counted, format_bytes

_LONGEST: Final = format_bytes(SECRET_BYTES_MAX)


def _target(body: SetSecret | RemoveSecret, caller: Caller) -> str:
    return f"{body.name} of {body.user or caller.name}"


@change(SetSecret, authority=SELF, target=_target)
def set_secret(state: AppMasterState, body: SetSecret, caller: Caller) -> SecretView:
    """Keep a secret, or give one another value; jobs keep the old value until they are updated."""
    user = body.user or caller.name
    size = len(body.value.text.encode())
    if size > SECRET_BYTES_MAX:
        raise SpecError(
            f'secret "{body.name}" is too long', details=[f"{format_bytes(size)}; {_LONGEST} are allowed"]
        )
    if "\0" in body.value.text or not body.value.text:
        what = "has a zero byte" if body.value.text else "is empty"
        raise SpecError(f'secret "{body.name}" {what}', details=["an environment variable cannot hold it"])
    if len(state.users) and user not in state.users and not state.jobs.count("user", user):
        raise NotFound(f'there is no user "{user}"', hint="galaxy user list")
    old = state.secrets.get(secret_key(user, body.name))
    kept = state.secrets.count("user", user)
    if old is None and kept >= SECRETS_MAX:
        raise Conflict(
            f'cannot keep secret "{body.name}": user "{user}" has {kept} already',
            details=[f"{SECRETS_MAX} are allowed"],
            hint="galaxy secret list; galaxy secret remove NAME",
        )
    row = SecretRecord(
        name=body.name,
        user=user,
        value=body.value,
        at_s=state.now_s,
        by=caller.name,
        serial=old.serial + 1 if old else 1,
    )
    state.secrets.put(secret_key(user, body.name), row)
    return view(state, row)


@change(RemoveSecret, authority=SELF, target=_target)
def remove_secret(state: AppMasterState, body: RemoveSecret, caller: Caller) -> SecretView:
    """Remove a secret that no job refers to.

    Raises:
        NotFound: there is none of that name. Conflict: names the jobs that refer to it.
    """
    row = _find(state, body.user or caller.name, body.name)
    seen = view(state, row)
    if seen.jobs:
        raise Conflict(
            f'cannot remove secret "{row.name}": it is used by {uses.number(seen)}',
            details=[", ".join(seen.jobs[:10]) + (", ..." if len(seen.jobs) > 10 else "")],
            hint="remove them, or update them without it",
        )
    state.secrets.drop(secret_key(row.user, row.name))
    return seen


@query(ListSecrets, authority=SELF)
def list_secrets(state: AppMasterState, body: ListSecrets, caller: Caller) -> SecretList:
    """List the secrets of one user, or of all, by user and name."""
    keys = tuple(state.secrets) if body.all else state.secrets.where("user", body.user or caller.name)
    page, after = page_of((state.secrets[key] for key in keys), lambda row: (row.user, row.name), body)
    return SecretList(secrets=tuple(view(state, row) for row in page), next=after)


def drop_all(state: AppMasterState, user: str) -> None:
    """Drop the secrets of a user who is removed."""
    for key in state.secrets.where("user", user):
        state.secrets.drop(key)


def view(state: AppMasterState, row: SecretRecord) -> SecretView:
    """Return a secret without its value."""
    jobs, more = uses.shown(uses.jobs_with_secret(state, row.user, row.name))
    return SecretView(
        name=row.name, user=row.user, at_s=row.at_s, by=row.by, serial=row.serial, jobs=jobs, more_jobs=more
    )


def values_of(
    state: AppMasterState, owner: str, spec: JobSpec, files: Mapping[str, Secret]
) -> dict[str, Secret]:
    """Return the value of every variable of ``spec`` that comes from a file or a secret of ``owner``.

    Raises:
        SpecError: names every missing value, or says that they are too long together.
    """
    values: dict[str, Secret] = {}
    diagnostics: list[Diagnostic] = []
    for index, task in enumerate(spec.pod.tasks):
        for name, source in task.env.items():
            if not isinstance(source, EnvFrom):
                continue
            found = _value(state, owner, source, files)
            if isinstance(found, Secret):
                values[f"{task.name}/{name}"] = found
            else:
                diagnostics.append(Diagnostic(("pod", "tasks", index, "env", name), found))
    if values and not diagnostics:
        diagnostics += oversize(resolve_env(spec, values).pod)
    if diagnostics:
        count = counted(len(diagnostics), "problem")
        raise SpecError(
            f'job "{spec.name}" has {count}',
            details=[str(diagnostic) for diagnostic in diagnostics],
            hint="galaxy secret list; galaxy secret set NAME",
        )
    return values


def secret_key(user: str, name: str) -> str:
    """Return the key of a secret. It is unique, because the name of a secret has no ``@``."""
    return f"{name}@{user}"


def _value(state: AppMasterState, owner: str, source: EnvFrom, files: Mapping[str, Secret]) -> Secret | str:
    """Return the value of ``source``, or a message about what is wrong with it."""
    if source.file:
        found = files.get(source.file)
        if found is None:
            return f'the content of file "{source.file}" did not come with the request'
        if "\0" in found.text or len(found.text.encode()) > SECRET_BYTES_MAX:
            return f'file "{source.file}" has a zero byte, or more than {_LONGEST}'
        return found
    row = state.secrets.get(secret_key(owner, source.secret))
    return f'there is no secret "{source.secret}" of user "{owner}"' if row is None else row.value


def _find(state: AppMasterState, user: str, name: str) -> SecretRecord:
    row = state.secrets.get(secret_key(user, name))
    if row is None:
        raise NotFound(f'there is no secret "{name}" of user "{user}"', hint="galaxy secret list")
    return row
