"""Named secrets, and the values that each revision of a job was given of them and of files.

A value is sealed to a revision when that is accepted: the same order always carries the same
value, and another one takes effect by an update, pod by pod, and not behind anybody's back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from galaxy.appmaster.logic.identity.resolve_env import filled
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, SpecError
from galaxy.model.api.request import Request
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SecretList, SetSecret
from galaxy.model.api.views import SecretView
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.rules import oversize
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.job import OVER, DesiredState
from galaxy.model.stored.secret import SECRET_BYTES_MAX, SECRETS_MAX, EnvFrom, Secret, SecretRecord
from galaxy.units import counted, format_bytes

_LONGEST: Final = format_bytes(SECRET_BYTES_MAX)


def set_(state: AppMasterState, request: Request) -> SecretView:
    """Keep a secret, or give one another value; jobs have what they have until they are updated."""
    body: SetSecret = request.body
    user = body.user or request.user
    size = len(body.value.text.encode())
    if size > SECRET_BYTES_MAX:
        raise SpecError(
            f'secret "{body.name}" is too long', details=[f"{format_bytes(size)}; {_LONGEST} are allowed"]
        )
    if "\0" in body.value.text or not body.value.text:
        what = "has a zero byte" if body.value.text else "is empty"
        raise SpecError(f'secret "{body.name}" {what}', details=["it could be no environment variable"])
    if len(state.users) and user not in state.users and not state.jobs.count("user", user):
        raise NotFound(f'there is no user "{user}"', hint="galaxy user list")
    old = state.secrets.get(secret_key(user, body.name))
    held = state.secrets.count("user", user)
    if old is None and held >= SECRETS_MAX:
        raise Conflict(
            f'cannot keep secret "{body.name}": user "{user}" has {held} already',
            details=[f"{SECRETS_MAX} are allowed"],
            hint="galaxy secret list; galaxy secret remove NAME",
        )
    row = SecretRecord(
        name=body.name,
        user=user,
        value=body.value,
        at_s=state.now_s,
        by=request.user,
        serial=old.serial + 1 if old else 1,
    )
    state.secrets.put(secret_key(user, body.name), row)
    return view(state, row)


def remove(state: AppMasterState, request: Request) -> SecretView:
    """Forget a secret that no job refers to any more."""
    body: RemoveSecret = request.body
    row = _find(state, body.user or request.user, body.name)
    seen = view(state, row)
    if seen.jobs:
        raise Conflict(
            f'cannot remove secret "{row.name}": it is used by {counted(len(seen.jobs), "job")}',
            details=[", ".join(seen.jobs[:10]) + (", ..." if len(seen.jobs) > 10 else "")],
            hint="remove them, or update them without it",
        )
    state.secrets.drop(secret_key(row.user, row.name))
    return seen


def list_secrets(state: AppMasterState, asked: ListSecrets) -> SecretList:
    """List the secrets of one user, or of all, by name."""
    keys = tuple(state.secrets) if asked.all else state.secrets.where("user", asked.user)
    rows = sorted((state.secrets[key] for key in keys), key=lambda row: (row.user, row.name))
    return SecretList(secrets=tuple(view(state, row) for row in rows))


def forget(state: AppMasterState, user: str) -> None:
    """Drop the secrets of a user who is removed; his jobs run on with what they were given."""
    for key in state.secrets.where("user", user):
        state.secrets.drop(key)


def view(state: AppMasterState, row: SecretRecord) -> SecretView:
    """Return a secret without its value."""
    live = (state.jobs[key] for key in state.jobs.where("user", row.user))
    jobs = sorted(
        job.name
        for job in live
        if job.desired is not DesiredState.REMOVE
        and job.state not in OVER
        and row.name in _names(state.spec(job.job, job.revision))
    )
    return SecretView(
        name=row.name, user=row.user, at_s=row.at_s, by=row.by, serial=row.serial, jobs=tuple(jobs)
    )


def values_of(
    state: AppMasterState, owner: str, spec: JobSpec, files: Mapping[str, Secret]
) -> dict[str, Secret]:
    """Return the value of every variable of ``spec`` that comes from a file or a secret of ``owner``.

    Raises:
        SpecError: some are not there, or together too long; all are named.
    """
    values: dict[str, Secret] = {}
    flaws: list[Diagnostic] = []
    for index, task in enumerate(spec.pod.tasks):
        for name, source in task.env.items():
            if not isinstance(source, EnvFrom):
                continue
            found = _value(state, owner, source, files)
            if isinstance(found, Secret):
                values[f"{task.name}/{name}"] = found
            else:
                flaws.append(Diagnostic(("pod", "tasks", index, "env", name), found))
    if values and not flaws:
        flaws += oversize(filled(spec, values).pod)
    if flaws:
        count = counted(len(flaws), "problem")
        raise SpecError(
            f'job "{spec.name}" has {count}',
            details=[str(flaw) for flaw in flaws],
            hint="galaxy secret list; galaxy secret set NAME",
        )
    return values


def secret_key(user: str, name: str) -> str:
    """Return the key of a secret; no name has an ``@`` in it, whatever a user is called."""
    return f"{name}@{user}"


def _value(state: AppMasterState, owner: str, source: EnvFrom, files: Mapping[str, Secret]) -> Secret | str:
    """Return the value of ``source``, or what is wrong with it."""
    if source.file:
        found = files.get(source.file)
        if found is None:
            return f'the content of file "{source.file}" did not come with the request'
        if "\0" in found.text or len(found.text.encode()) > SECRET_BYTES_MAX:
            return f'file "{source.file}" has a zero byte, or more than {_LONGEST}'
        return found
    row = state.secrets.get(secret_key(owner, source.secret))
    return f'there is no secret "{source.secret}" of user "{owner}"' if row is None else row.value


def _names(spec: JobSpec) -> set[str]:
    sources = (source for task in spec.pod.tasks for source in task.env.values())
    return {source.secret for source in sources if isinstance(source, EnvFrom) and source.secret}


def _find(state: AppMasterState, user: str, name: str) -> SecretRecord:
    row = state.secrets.get(secret_key(user, name))
    if row is None:
        raise NotFound(f'there is no secret "{name}" of user "{user}"', hint="galaxy secret list")
    return row
