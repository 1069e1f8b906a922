"""Quotas: set by operators, checked here before a job grows, enforced by ResMan.

AppMaster knows what a user's jobs ask for together, so it refuses a change that asks for too much.
ResMan knows which containers exist, and places none beyond the ceiling. Where the two differ for a
moment (a container that is not gone yet), the new container waits in ResMan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from galaxy.appmaster.logic.identity import identity_sync
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, Refused, UsageError
from galaxy.model.api.quotas import ListQuotas, QuotaList, SetQuota
from galaxy.model.api.views import QuotaView
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.resources import FIELDS, LIMITS_EXAMPLE, NOTHING, Ceiling, Resource, Resources
from galaxy.model.stored.job import DesiredState, JobRecord
from galaxy.model.stored.quota import Quota
from galaxy.operations.authz import OPERATORS, SELF, is_operator
from galaxy.operations.declaration import Caller, change, query
from galaxy.operations.paging import page_of
from galaxy.scheduler.quota import ceiling_name, charged, counts_in
from galaxy.units import MIB, format_bytes, format_cpu

QUOTAS_MAX: Final = 10_000
"""Quotas of all users together, because they travel to ResMan in one message."""

_UNLIMITED: Final = Ceiling()


@change(SetQuota, authority=OPERATORS, target=lambda body, _: f"{body.user} on {body.pool}")
def set_quota(state: AppMasterState, body: SetQuota, caller: Caller) -> QuotaView:
    """Change the given fields of a ceiling. Running containers stay, even above a lower ceiling."""
    if len(state.users) and body.user not in state.users:
        raise NotFound(f'there is no user "{body.user}"', hint="galaxy user list")
    key = quota_key(body.user, body.pool)
    old = state.quotas.get(key)
    changes = {
        field: value for field in FIELDS if (value := getattr(body.ceiling, field)) is not None
    } | dict.fromkeys(body.lift)
    if not changes:
        raise UsageError("nothing to set", hint=f"galaxy quota set {body.user} {LIMITS_EXAMPLE}")
    if old is None and len(state.quotas) >= QUOTAS_MAX:
        raise Conflict(f"there are {len(state.quotas)} quotas, and no room for more")
    ceiling = msgspec.structs.replace(old.ceiling if old else _UNLIMITED, **changes)
    quota = Quota(user=body.user, pool=body.pool, ceiling=ceiling, by=caller.name, at_s=state.now_s)
    if ceiling == _UNLIMITED:
        state.quotas.drop(key)
    else:
        state.quotas.put(key, quota)
    identity_sync.changed(state)
    return view(state, quota)


def lift_all(state: AppMasterState, user: str) -> None:
    """Lift every quota of a user who is removed."""
    for key in state.quotas.where("user", user):
        state.quotas.drop(key)
        identity_sync.changed(state)


@query(ListQuotas, authority=SELF)
def list_quotas(state: AppMasterState, body: ListQuotas, caller: Caller) -> QuotaList:
    """List quotas by user and pool, with what the jobs ask for and what is placed."""
    user = body.user or ("" if is_operator(caller.user) else caller.name)
    keys = state.quotas.where("user", user) if user else tuple(state.quotas)
    page, after = page_of((state.quotas[key] for key in keys), lambda row: (row.user, row.pool), body)
    return QuotaList(quotas=tuple(view(state, row) for row in page), next=after)


def view(state: AppMasterState, quota: Quota) -> QuotaView:
    """Return the view of a quota; containers that are being destroyed do not count as used."""
    used = NOTHING
    for job, spec in _jobs(state, quota.user, quota.pool):
        placed = sum(pod.placed for pod in state.job_pods(job.job))
        used = used.plus(amount_of(spec), placed)
    wanted = total_demand(state, quota)
    return QuotaView(
        user=quota.user,
        pool=quota.pool,
        ceiling=quota.ceiling,
        wanted=wanted,
        used=used,
        by=quota.by,
        at_s=quota.at_s,
        over=quota.ceiling.over(wanted),
    )


def quota_key(user: str, pool: str) -> str:
    return f"{user}/{pool}"


# ---- what jobs ask for


def total_demand(state: AppMasterState, quota: Quota, but: str = "") -> Resources:
    """Return what the jobs under ``quota`` ask for together, without the job ``but``."""
    total = NOTHING
    for job, spec in _jobs(state, quota.user, quota.pool):
        if job.job != but and job.desired is not DesiredState.REMOVE:
            total = total.plus(amount_of(spec), count_of(job, job.replica))
    return total


def amount_of(spec: JobSpec) -> Resources:
    """Return what one container of ``spec`` takes of a quota."""
    return charged(demand_of(spec).resources.bounded(), spec.type.priority)


def count_of(job: JobRecord, replica: int) -> int:
    """Return how many containers ``job`` asks for with ``replica`` pods; an ended pod asks for none."""
    return 0 if job.state.is_over else replica - sum(index < replica for index in job.group_release)


def check(state: AppMasterState, user: str, spec: JobSpec, doing: str, *, count: int, but: str = "") -> None:
    """Make sure that the quotas of ``user`` have room for ``count`` containers of ``spec``.

    These containers replace those of job ``but``. A demand that does not grow is not refused, even if the
    ceiling was lowered below it.

    Raises:
        Refused: names the demand and the rest of each exceeded ceiling, and how many containers fit.
    """
    each = amount_of(spec)
    lines: list[str] = []
    heads: list[str] = []
    fits = count
    smaller: dict[str, tuple[Resource, int]] = {}
    for key in state.quotas.where("user", user):
        quota = state.quotas[key]
        if not counts_in(quota.pool, spec.deploy.pools):
            continue
        others, all_jobs = total_demand(state, quota, but=but), total_demand(state, quota)
        over = quota.ceiling.exceeded(all_jobs, others.plus(each, count))
        for resource in over:
            heads.append(ceiling_name(quota, resource))
            mine = getattr(all_jobs - others, resource.field)
            lines.append(_line(quota, resource, others, each, count, mine))
            share = max(mine, _left(quota, resource, others)) // count
            known = smaller.get(resource.field, (resource, share))
            smaller[resource.field] = resource, min(share, known[1])
        if over:
            fits = min(fits, _fits(quota, others, each))
    if lines:
        raise Refused(
            f"cannot {doing}: {', '.join(heads)} exceeded",
            details=lines,
            hint=_hint(user, fits and fits + spec.deploy.replica - count, list(smaller.values())),
        )


def _fits(quota: Quota, others: Resources, each: Resources) -> int:
    room = quota.ceiling.room(others, each)
    return room[0] if room else 0


def _left(quota: Quota, resource: Resource, others: Resources) -> int:
    return max(0, int(getattr(quota.ceiling, resource.field)) - int(getattr(others, resource.field)))


def _line(quota: Quota, resource: Resource, others: Resources, each: Resources, count: int, mine: int) -> str:
    """Return what is asked, and what is left; for a job that has ``mine`` already, who has how much."""
    limit, one = getattr(quota.ceiling, resource.field), getattr(each, resource.field)
    show = resource.show
    times = "" if resource.per_container else f" ({count} x {show(one)})"
    left = f"{show(_left(quota, resource, others))} of {show(limit)} left"
    over = getattr(others, resource.field) - limit
    if mine:
        most = max(mine, _left(quota, resource, others))
        theirs = show(getattr(others, resource.field))
        return (
            f"{resource.name}: asks {show(one * count)}{times}; this job has {show(mine)} "
            f"and others {theirs} of {show(limit)}, so it may have {show(most)}"
        )
    beyond = f", and other jobs are {show(over)} over it" if over > 0 else ""
    return f"{resource.name}: asks {show(one * count)}{times}; {left}{beyond}"


def _hint(user: str, fits: int, smaller: Sequence[tuple[Resource, int]]) -> str:
    """Return the way out: fewer pods, or else smaller ones, or else fewer jobs."""
    if fits:
        way = f"lower deploy.replica to {fits}"
    elif all(share and not resource.per_container for resource, share in smaller):
        way = (
            "lower " + ", ".join(f"{row.name} to {_exact(row, share)}" for row, share in smaller) + " per pod"
        )
    else:
        way = "remove another job, or ask an operator for more"
    return f"galaxy quota show {user}, or {way}"


def _exact(resource: Resource, amount: int) -> str:
    """Write an amount as a job file has it, rounded down and not to a few digits."""
    if resource.show is format_bytes:
        return f"{amount // MIB}M"
    return f"{amount}m" if resource.show is format_cpu else resource.show(amount)


def _jobs(state: AppMasterState, user: str, pool: str) -> list[tuple[JobRecord, JobSpec]]:
    """Return the jobs of ``user`` that count in ``pool``, with their current specs."""
    jobs = (state.jobs[key] for key in state.jobs.where("user", user))
    pairs = [(job, state.spec(job.job, job.revision)) for job in jobs]
    return [(job, spec) for job, spec in pairs if counts_in(pool, spec.deploy.pools)]
