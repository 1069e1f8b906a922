"""What clients ask for: each change once a key, each answer as soon as it is decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from galaxy.appmaster.logic.api import lookup, queries, sessions
from galaxy.appmaster.logic.identity import authn, authz, quotas, secrets, users
from galaxy.appmaster.logic.jobs import groups, jobs, pods
from galaxy.appmaster.logic.jobs.transitions import (
    RecoverRequested,
    StartRequested,
    StopRequested,
    UpdateRequested,
)
from galaxy.appmaster.logic.rollout import rollout
from galaxy.appmaster.logic.state import AppMasterState, is_batch, revision_key
from galaxy.errors import Conflict, GalaxyError, NotSupportedYet, SpecError, Unreachable, UsageError
from galaxy.ids import job_id
from galaxy.model.api.answers import Answer, Problem, Reply
from galaxy.model.api.catalog import BODIES
from galaxy.model.api.jobs import Done, RecoverPod, RemoveJob, StartJob, StopJob, SubmitJob, UpdateJob
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import SessionOpened
from galaxy.model.api.views import QuotaView, SecretView, UserView
from galaxy.model.jobspec.demand import container_changes
from galaxy.model.jobspec.rules import advice, check, flaws
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.job import (
    OVER,
    AnswerRecord,
    DesiredState,
    JobRecord,
    JobState,
    PodPhase,
    RevisionRecord,
)
from galaxy.model.stored.secret import RevisionSecrets, Secret
from galaxy.model.stored.user import UserRecord
from galaxy.units import counted

MESSAGE_MAX: Final = 400
"""Longest message of an error in the audit trail, in characters."""

_FULL: Final = Unreachable(
    "AppMaster has made more changes within minutes than it can remember", hint="the same again in a while"
)


def handle(state: AppMasterState, request: Request) -> None:
    """Carry out or answer ``request``; the same key again gets the first answer again."""
    kind = BODIES.get(request.op)
    if kind is None or not isinstance(request.body, kind):
        _reply(state, request, problem=UsageError(f'"{request.op}" is nothing that AppMaster does'))
        return
    try:
        user = authn.authenticate(state.users, request, state.now_s, state.config)
        if user is not None and not state.nonces.is_new(user.user, request.nonce, state.now_s):
            return  # Doubled on its way, or a replay: the first of it was answered.
        if request.op in _READS:
            authz.read(state, user, request)
            result = authz.visible(state, user, _READS[request.op](state, authz.scope(user, request)))
            _reply(state, request, result=result)
            return
    except GalaxyError as error:
        _reply(state, request, problem=error)
        return
    if request.op in _CHANGES:
        _once(state, request, user)
    else:
        _reply(state, request, problem=UsageError(f'"{request.op}" is answered before it comes here'))


def _once(state: AppMasterState, request: Request, user: UserRecord | None) -> None:
    first = state.answers.get(request.key)
    if first is not None and user is not None and first.user != user.user:
        _reply(state, request, problem=Conflict("this idempotency key is another user's"))
        return
    if first is not None:
        result = first.done or first.opened or first.seen or first.secret or first.quota
        answer = Answer(key=request.key, result=result, problem=first.problem)
        state.replies.append(Reply(reply=request.reply, answer=answer))
        return
    if state.now_s > request.deadline_s + state.config.request_late_max_s:
        return  # Nobody waits, and the key may have been answered and forgotten.
    if user is not None and state.answers_full:
        _reply(state, request, problem=_FULL)
        return
    row = AnswerRecord(key=request.key, op=request.op, at_s=state.now_s, user=request.user)
    try:
        target = authz.target_of(request)
        authz.change(state, user, request)
        result = _CHANGES[request.op](state, request)
    except GalaxyError as error:
        state.answer(msgspec.structs.replace(row, problem=_problem(error)))
        if user is not None:
            state.record_audit(user.user, request.op, target, error.kind, error.message[:MESSAGE_MAX])
        _reply(state, request, problem=error)
        return
    if user is not None:  # Where there are no users, what a request says of its sender is worth nothing.
        state.record_audit(user.user, request.op, target, "ok", "")
    opened = result if isinstance(result, SessionOpened) else None
    done = result if isinstance(result, Done) else None
    seen = result if isinstance(result, UserView) else None
    secret = result if isinstance(result, SecretView) else None
    quota = result if isinstance(result, QuotaView) else None
    row = msgspec.structs.replace(row, done=done, opened=opened, seen=seen, secret=secret, quota=quota)
    if user is not None and user.user not in state.users:
        row = msgspec.structs.replace(row, user="")  # He removed himself: no namesake is told of it.
    state.answer(row)
    _reply(state, request, result=result)


def _submit(state: AppMasterState, request: Request) -> Done:
    body: SubmitJob = request.body
    spec = body.spec
    _check(spec)
    key = job_id(spec.name, request.key)
    same = state.jobs.get(key)
    if same is not None and same.key == request.key:
        return Done(job=key, revision=same.revision)
    if same is not None or key in state.history:
        raise Conflict(f'the id "{key}" is taken by an earlier job', hint="submit it once more")
    others = [state.jobs[other] for other in state.jobs.where("name", spec.name)]
    others = [other for other in others if other.desired is not DesiredState.REMOVE]
    for other in others:
        if other.state not in OVER:
            raise Conflict(
                f'cannot run "{spec.name}": a job of this name is {other.state}',
                details=[f"{other.job}, revision {other.revision}"],
                hint=f"galaxy job update {spec.name}, or galaxy job remove {spec.name}",
            )
    quotas.check(state, request.user, spec, f'run "{spec.name}"', count=spec.deploy.replica)
    values = secrets.values_of(state, request.user, spec, body.files)
    for other in others:
        jobs.remove(state, other)
    now_s = state.now_s
    _put_revision(state, key, 1, spec, request.user, values)
    job = state.put_job(
        JobRecord(
            job=key,
            name=spec.name,
            type=spec.type,
            key=request.key,
            state=JobState.PENDING,
            revision=1,
            replica=spec.deploy.replica,
            created_s=now_s,
            updated_s=now_s,
            since_s=now_s,
            user=request.user,
        )
    )
    state.record_event(key, "job.submitted", key, counted(spec.deploy.replica, "pod") + _by(request.user))
    state.add_services(job)
    jobs.make_pods(state, job)
    state.touch(key)
    return Done(job=key, revision=1, warnings=tuple(advice(spec)))


def _update(state: AppMasterState, request: Request) -> Done:
    body: UpdateJob = request.body
    job = _live(state, body.job, "update")
    spec, old = body.spec, state.spec(job.job, job.revision)
    _check(spec)
    if spec.name != job.name:
        raise SpecError(
            f'cannot update "{job.name}" with a job of another name',
            details=[f"`name`: {spec.name}"],
            hint=f"galaxy job run it, or name it {job.name}",
        )
    values = secrets.values_of(state, job.user, spec, body.files)
    sealed = state.revision_secrets.get(revision_key(job.job, job.revision))
    if spec == old and values == (sealed.values if sealed else {}):
        return Done(job=job.job, revision=job.revision, warnings=("nothing changed",))
    changes = container_changes(old, spec)
    if changes:
        raise NotSupportedYet(
            f'cannot update "{job.name}": it changes what the container is',
            details=changes,
            hint=f"galaxy job remove {job.name} and run it again",
        )
    count = quotas.count_of(job, spec.deploy.replica)
    quotas.check(state, job.user, spec, f'update "{job.name}"', count=count, but=job.job)
    revision = job.revision + 1
    _put_revision(state, job.job, revision, spec, request.user, values)
    origin = job.revision
    state.record_event(
        job.job, "job.updated", job.job, f"revision {origin} to {revision}" + _by(request.user)
    )
    job = state.put_job(
        msgspec.structs.replace(job, revision=revision, replica=spec.deploy.replica, updated_s=state.now_s)
    )
    job = state.apply_job_event(job, UpdateRequested)
    job = rollout.begin(state, job, origin)
    state.add_services(job)
    jobs.make_pods(state, job)
    _prune_revisions(state, job)
    state.touch(job.job)
    return Done(job=job.job, revision=revision, warnings=tuple(advice(spec)))


def _stop(state: AppMasterState, request: Request) -> Done:
    body: StopJob = request.body
    job = _live(state, body.job, "stop")
    if job.desired is DesiredState.STOP:
        return Done(job=job.job, revision=job.revision, warnings=("it was stopped already",))
    state.record_event(job.job, "job.stop-asked", job.job, _by(request.user).strip())
    job = state.put_job(msgspec.structs.replace(job, desired=DesiredState.STOP, updated_s=state.now_s))
    job = rollout.begin(state, job, job.revision)
    state.apply_job_event(job, StopRequested)
    state.touch(job.job)
    return Done(job=job.job, revision=job.revision)


def _start(state: AppMasterState, request: Request) -> Done:
    body: StartJob = request.body
    job = _live(state, body.job, "start")
    if job.desired is DesiredState.RUN:
        return Done(job=job.job, revision=job.revision, warnings=("it was started already",))
    state.record_event(job.job, "job.start-asked", job.job, _by(request.user).strip())
    job = state.put_job(msgspec.structs.replace(job, desired=DesiredState.RUN, updated_s=state.now_s))
    job = groups.request_start(state, state.apply_job_event(job, StartRequested))
    if not is_batch(job.type):
        for pod in state.job_pods(job.job):
            if pod.phase is PodPhase.FINISHED:
                pods.write(state, pod, recover=True)
    state.touch(job.job)
    return Done(job=job.job, revision=job.revision)


def _remove(state: AppMasterState, request: Request) -> Done:
    body: RemoveJob = request.body
    job = lookup.find_job(state, body.job)
    if job.desired is DesiredState.REMOVE:
        return Done(job=job.job, revision=job.revision, warnings=("it is being removed already",))
    state.record_event(job.job, "job.remove-asked", job.job, _by(request.user).strip())
    jobs.remove(state, job)
    return Done(job=job.job, revision=job.revision)


def _recover(state: AppMasterState, request: Request) -> Done:
    """Deploy anew: the pod that is named, whatever its state, or every failed one of the job."""
    body: RecoverPod = request.body
    rows = lookup.find_pods(state, body.pod or body.job)
    job = lookup.find_job(state, rows[0].job if rows else body.job)
    if job.state is JobState.FINISHED or job.desired is not DesiredState.RUN:
        why = "stopped" if job.desired is DesiredState.STOP else str(job.state)
        raise Conflict(f'cannot recover "{job.name}": it is {why}', hint=f"galaxy job show {job.name}")
    if not body.pod:
        rows = tuple(pod for pod in rows if pod.phase is PodPhase.FAILED)
    elif rows[0].phase is PodPhase.FINISHED:
        raise Conflict(f'pod "{rows[0].pod}" has finished; it never runs again')
    if not rows:
        return Done(job=job.job, revision=job.revision, warnings=("no pod of it has failed",))
    gone = [pod for pod in rows if job.state in OVER or pod.index in job.group_release]
    spec = state.spec(job.job, job.revision)
    count = quotas.count_of(job, job.replica) + len(gone)
    quotas.check(state, job.user, spec, f'recover "{job.name}"', count=count, but=job.job)
    job = state.apply_job_event(job, RecoverRequested)
    job = groups.request_start(state, state.put_job(msgspec.structs.replace(job, exit_code=None)))
    state.timers.cancel(("ended", job.job))
    for pod in rows:
        state.record_event(job.job, "pod.recover-asked", pod.pod, _by(request.user).strip())
        pods.write(state, pod, recover=True)
    state.touch(job.job)
    return Done(job=job.job, revision=job.revision)


def _logs(state: AppMasterState, request: Request) -> SessionOpened:
    return sessions.open_logs(state, request, request.body)


def _exec(state: AppMasterState, request: Request) -> SessionOpened:
    return sessions.open_exec(state, request, request.body)


Result = Done | SessionOpened | UserView | SecretView | QuotaView

_CHANGES: Final[dict[str, Callable[[AppMasterState, Request], Result]]] = {
    "galaxy.job.submit": _submit,
    "galaxy.job.update": _update,
    "galaxy.job.stop": _stop,
    "galaxy.job.start": _start,
    "galaxy.job.remove": _remove,
    "galaxy.job.recover": _recover,
    "galaxy.job.logs": _logs,
    "galaxy.pod.exec": _exec,
    "galaxy.user.add": users.add,
    "galaxy.user.remove": users.remove,
    "galaxy.user.token": users.token,
    "galaxy.user.grant": users.grant,
    "galaxy.secret.set": secrets.set_,
    "galaxy.secret.remove": secrets.remove,
    "galaxy.quota.set": quotas.set_,
}

_READS: Final[dict[str, Callable[[AppMasterState, Any], Any]]] = {
    "galaxy.job.list": queries.list_jobs,
    "galaxy.job.show": queries.show_job,
    "galaxy.service.discover": queries.discover,
    "galaxy.user.show": users.show,
    "galaxy.user.list": users.list_users,
    "galaxy.audit.list": users.list_audit,
    "galaxy.secret.list": secrets.list_secrets,
    "galaxy.quota.list": quotas.list_quotas,
}


def _live(state: AppMasterState, text: str, verb: str) -> JobRecord:
    """Return a job that ``verb`` can be done to.

    Raises:
        NotFound, Conflict: there is none, or it is over.
    """
    job = lookup.find_job(state, text)
    if job.desired is DesiredState.REMOVE:
        raise Conflict(f'cannot {verb} "{job.name}": it is being removed')
    if job.state in OVER:
        raise Conflict(f'cannot {verb} "{job.name}": it has {job.state}', hint="galaxy job run it anew")
    return job


def _check(spec: JobSpec) -> None:
    lines = check(spec)
    if not lines:
        return
    later = sum(flaw.unsupported for flaw in flaws(spec))
    kind = NotSupportedYet if later == len(lines) else SpecError
    count = counted(len(lines), "problem")
    raise kind(f'job "{spec.name}" has {count}', details=lines)


def _put_revision(
    state: AppMasterState, job: str, revision: int, spec: JobSpec, user: str, values: dict[str, Secret]
) -> None:
    if values:
        state.revision_secrets.put(revision_key(job, revision), RevisionSecrets(job=job, values=values))
    row = RevisionRecord(job=job, revision=revision, spec=spec, at_s=state.now_s, user=user)
    state.revisions.put(revision_key(job, revision), row)


def _prune_revisions(state: AppMasterState, job: JobRecord) -> None:
    """Keep the last revisions, and those that a pod still is or shall be."""
    oldest = job.revision - state.config.revisions_max
    used = {number for pod in state.job_pods(job.job) for number in (pod.revision, pod.target)}
    for key in state.revisions.where("job", job.job):
        number = state.revisions[key].revision
        if number <= oldest and number not in used:
            state.drop_revision(key)


def _reply(
    state: AppMasterState, request: Request, *, result: Any = None, problem: GalaxyError | None = None
) -> None:
    told = _problem(problem) if problem else None
    state.replies.append(
        Reply(reply=request.reply, answer=Answer(key=request.key, result=result, problem=told))
    )


def _problem(error: GalaxyError) -> Problem:
    return Problem(kind=error.kind, message=error.message, details=error.details, hint=error.hint)


def _by(user: str) -> str:
    return f" by {user}" if user else ""
