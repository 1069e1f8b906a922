"""Changes of jobs: submit, update, stop, start, remove, recover."""

from __future__ import annotations

import msgspec

from galaxy.appmaster.logic.api import lookup, packages
from galaxy.appmaster.logic.batch import runs
from galaxy.appmaster.logic.identity import quotas, secrets
from galaxy.appmaster.logic.identity.job_authz import SUBMIT, UPDATE, job_owner
from galaxy.appmaster.logic.jobs import groups, jobs, pods
from galaxy.appmaster.logic.jobs.transitions import (
    RecoverRequested,
    StartRequested,
    StopRequested,
    UpdateRequested,
)
from galaxy.appmaster.logic.rollout import rollout
from galaxy.appmaster.logic.rollout.impact import effects_of
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.appmaster.logic.tables import revision_key
from galaxy.errors import Conflict, NotSupportedYet, SpecError
from galaxy.ids import job_id
from galaxy.model.api.jobs import Accepted, RecoverPod, RemoveJob, StartJob, StopJob, SubmitJob, UpdateJob
from galaxy.model.api.request import content_digest
from galaxy.model.jobspec.demand import container_changes, size_changes
from galaxy.model.jobspec.rules import check, diagnostics, likely_mistakes
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.job import DesiredState, JobRecord, JobState, PodPhase, RevisionRecord
from galaxy.model.stored.secret import RevisionSecrets, Secret
from galaxy.model.stored.user import Authority
from galaxy.operations.declaration import Caller, change
from galaxy.operations.dispatch import key_conflict
from galaxy.units import counted


def _job_name(body: UpdateJob | StopJob | StartJob | RemoveJob, _: Caller) -> str:
    return body.job


def _pod_or_job(body: RecoverPod, _: Caller) -> str:
    return body.pod or body.job


@change(SubmitJob, authority=SUBMIT, target=lambda body, _: body.spec.name)
def submit_job(state: AppMasterState, body: SubmitJob, caller: Caller) -> Accepted:
    """Create the job, its first revision and its pods; a finished job of this name is removed."""
    spec = body.spec
    _check(spec)
    key = job_id(spec.name, caller.key)
    digest = content_digest(caller.key, body)
    for other_id in state.jobs.where("key", caller.key):
        same = state.jobs[other_id]  # The answer to its request is not kept any more.
        is_own = caller.user is None or same.user == caller.name
        if is_own and same.job == key and same.digest == digest:
            return Accepted(job=key, revision=same.revision)
        first = f'job.submit of "{same.name}"' if is_own else "a request of another user"
        raise key_conflict(caller.key, first, f'job.submit of "{spec.name}"')
    if key in state.jobs or key in state.history:
        raise Conflict(f'the id "{key}" is taken by an earlier job', hint="submit it once more")
    others = [state.jobs[other] for other in state.jobs.where("name", spec.name)]
    others = [other for other in others if other.desired is not DesiredState.REMOVE]
    for other in others:
        if not other.state.is_over:
            raise Conflict(
                f'cannot run "{spec.name}": a job of this name is {other.state}',
                details=[f"{other.job}, revision {other.revision}"],
                hint=f"galaxy job update {spec.name}, or galaxy job remove {spec.name}",
            )
    packages.require(state, spec, caller)
    quotas.check(state, caller.name, spec, f'run "{spec.name}"', count=spec.deploy.replica)
    values = secrets.values_of(state, caller.name, spec, body.files)
    for other in others:
        jobs.remove(state, other)
    now_s = state.now_s
    _put_revision(state, key, 1, spec, caller.name, values)
    job = state.put_job(
        JobRecord(
            job=key,
            name=spec.name,
            type=spec.type,
            key=caller.key,
            digest=digest,
            state=JobState.PENDING,
            revision=1,
            replica=spec.deploy.replica,
            created_s=now_s,
            updated_s=now_s,
            since_s=now_s,
            user=caller.name,
        )
    )
    job = runs.start(state, job)
    state.record_event(key, "job.submitted", key, counted(spec.deploy.replica, "pod") + _by(caller.name))
    state.index_services(job)
    jobs.create_pods(state, job)
    state.touch(key)
    return Accepted(job=key, revision=1, warnings=tuple(likely_mistakes(spec)))


@change(UpdateJob, authority=UPDATE, target=_job_name)
def update_job(state: AppMasterState, body: UpdateJob, caller: Caller) -> Accepted:
    """Create a revision and begin a rollout to it. An equal spec with equal secrets changes nothing."""
    job = _changeable_job(state, body.job, "update")
    spec, old = body.spec, state.spec(job.job, job.revision)
    _check(spec)
    if spec.name != job.name:
        raise SpecError(
            f'cannot update "{job.name}" with a job of another name',
            details=[f"`name`: {spec.name}"],
            hint=f"run it with galaxy job run, or name it {job.name}",
        )
    packages.require(state, spec, caller, job)
    values = secrets.values_of(state, job.user, spec, body.files)
    old_values = state.revision_secrets.get(revision_key(job.job, job.revision))
    if spec == old and values == (old_values.values if old_values else {}):
        return Accepted(job=job.job, revision=job.revision, warnings=("nothing changed",))
    changes = container_changes(old, spec)
    if changes:
        raise NotSupportedYet(
            f'cannot update "{job.name}": the change needs new containers',
            details=changes,
            hint=f"galaxy job remove {job.name} and run it again",
        )
    count = quotas.count_of(job, spec.deploy.replica)
    quotas.check(state, job.user, spec, f'update "{job.name}"', count=count, but=job.job)
    revision = job.revision + 1
    size = revision if size_changes(old, spec) else job.size
    _put_revision(state, job.job, revision, spec, caller.name, values, size=size)
    origin = job.revision
    state.record_event(job.job, "job.updated", job.job, f"revision {origin} to {revision}" + _by(caller.name))
    replica = spec.deploy.replica
    job = state.put_job(
        msgspec.structs.replace(job, revision=revision, size=size, replica=replica, updated_s=state.now_s)
    )
    job = state.apply_job_event(job, UpdateRequested)
    job = rollout.begin(state, job, origin)
    state.index_services(job)
    jobs.create_pods(state, job)
    _prune_revisions(state, job)
    state.touch(job.job)
    effects = effects_of(old, spec)
    return Accepted(job=job.job, revision=revision, warnings=tuple(likely_mistakes(spec)), effects=effects)


@change(StopJob, authority=job_owner("stop", _job_name, authority=Authority.UPDATE_JOB), target=_job_name)
def stop_job(state: AppMasterState, body: StopJob, caller: Caller) -> Accepted:
    """Stop the programs; containers stay."""
    job = _changeable_job(state, body.job, "stop")
    if job.desired is DesiredState.STOP:
        return Accepted(job=job.job, revision=job.revision, warnings=("it was stopped already",))
    state.record_event(job.job, "job.stop-asked", job.job, _by(caller.name).strip())
    job = state.put_job(msgspec.structs.replace(job, desired=DesiredState.STOP, updated_s=state.now_s))
    job = rollout.begin(state, job, job.revision)
    state.apply_job_event(job, StopRequested)
    state.touch(job.job)
    return Accepted(job=job.job, revision=job.revision)


@change(StartJob, authority=job_owner("start", _job_name, authority=Authority.UPDATE_JOB), target=_job_name)
def start_job(state: AppMasterState, body: StartJob, caller: Caller) -> Accepted:
    """Start the programs of a stopped job."""
    job = _changeable_job(state, body.job, "start")
    if job.desired is DesiredState.RUN:
        return Accepted(job=job.job, revision=job.revision, warnings=("it was started already",))
    state.record_event(job.job, "job.start-asked", job.job, _by(caller.name).strip())
    job = state.put_job(msgspec.structs.replace(job, desired=DesiredState.RUN, updated_s=state.now_s))
    job = groups.request_start(state, state.apply_job_event(job, StartRequested))
    if not job.type.is_batch:
        for pod in state.job_pods(job.job):
            if pod.phase is PodPhase.FINISHED:
                pods.write(state, pod, recover=True)
    state.touch(job.job)
    return Accepted(job=job.job, revision=job.revision)


@change(RemoveJob, authority=job_owner("remove", _job_name, authority=Authority.REMOVE_JOB), target=_job_name)
def remove_job(state: AppMasterState, body: RemoveJob, caller: Caller) -> Accepted:
    """Begin to remove a job; its programs are drained and stopped first."""
    job = lookup.find_job(state, body.job)
    if job.desired is DesiredState.REMOVE:
        return Accepted(job=job.job, revision=job.revision, warnings=("it is being removed already",))
    state.record_event(job.job, "job.remove-asked", job.job, _by(caller.name).strip())
    jobs.remove(state, job)
    return Accepted(job=job.job, revision=job.revision)


@change(
    RecoverPod,
    authority=job_owner("recover", _pod_or_job, authority=Authority.UPDATE_JOB),
    target=_pod_or_job,
)
def recover_pod(state: AppMasterState, body: RecoverPod, caller: Caller) -> Accepted:
    """Deploy again the named pod, unless it is finished, or every failed pod of the job."""
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
        return Accepted(job=job.job, revision=job.revision, warnings=("no pod of it has failed",))
    gone = [pod for pod in rows if job.state.is_over or pod.index in job.group_release]
    spec = state.spec(job.job, job.revision)
    count = quotas.count_of(job, job.replica) + len(gone)
    quotas.check(state, job.user, spec, f'recover "{job.name}"', count=count, but=job.job)
    job = state.apply_job_event(job, RecoverRequested)
    job = groups.request_start(state, state.put_job(msgspec.structs.replace(job, exit_code=None)))
    state.timers.cancel(("ended", job.job))
    runs.retry(state, job)
    for pod in rows:
        state.record_event(job.job, "pod.recover-asked", pod.pod, _by(caller.name).strip())
        pods.write(state, pod, recover=True)
    state.touch(job.job)
    return Accepted(job=job.job, revision=job.revision)


def _changeable_job(state: AppMasterState, text: str, verb: str) -> JobRecord:
    """Return the job that ``text`` names, for a change.

    Raises:
        NotFound, Conflict: there is no such job, it has ended, or it is being removed.
    """
    job = lookup.find_job(state, text)
    if job.desired is DesiredState.REMOVE:
        raise Conflict(f'cannot {verb} "{job.name}": it is being removed')
    if job.state.is_over:
        raise Conflict(
            f'cannot {verb} "{job.name}": it has {job.state}', hint="run it again with galaxy job run"
        )
    return job


def _check(spec: JobSpec) -> None:
    """Make sure that ``spec`` follows all rules.

    Raises:
        SpecError, NotSupportedYet: lists every problem.
    """
    lines = check(spec)
    if not lines:
        return
    later = sum(diagnostic.unsupported for diagnostic in diagnostics(spec))
    kind = NotSupportedYet if later == len(lines) else SpecError
    count = counted(len(lines), "problem")
    raise kind(f'job "{spec.name}" has {count}', details=lines)


def _put_revision(
    state: AppMasterState,
    job: str,
    revision: int,
    spec: JobSpec,
    user: str,
    values: dict[str, Secret],
    *,
    size: int = 0,
) -> None:
    if values:
        state.revision_secrets.put(revision_key(job, revision), RevisionSecrets(job=job, values=values))
    row = RevisionRecord(job=job, revision=revision, spec=spec, at_s=state.now_s, user=user, size=size)
    state.revisions.put(revision_key(job, revision), row)


def _prune_revisions(state: AppMasterState, job: JobRecord) -> None:
    """Drop old revisions, except those that a pod runs or will run."""
    oldest = job.revision - state.config.revisions_max
    for key in state.revisions.where("job", job.job):
        number = state.revisions[key].revision
        if number <= oldest and not state.pods.count("revision", key):
            state.drop_revision(key)


def _by(user: str) -> str:
    return f" by {user}" if user else ""
