"""What a quota allows: amounts added, compared with ceilings, and what to say of what is over.

A job counts in full against each pool where it may run: against those that it names, or, naming
none, against every pool. So what a ceiling on a pool promises holds wherever containers land.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from galaxy.model.messages.container import Demand
from galaxy.model.stored.quota import Amount, Ceiling, Quota
from galaxy.model.stored.user import ALL_POOLS
from galaxy.scheduler.requests import bounded
from galaxy.units import format_bytes, format_cpu

NOTHING: Final = Amount()

FIELDS: Final = {
    "cpu_milli": "cpu",
    "memory_bytes": "memory",
    "disk_bytes": "disk",
    "containers": "containers",
}
"""What a quota counts, and what people call it."""


def amount_of(demand: Demand) -> Amount:
    """Return what one container of ``demand`` asks."""
    return Amount(
        cpu_milli=bounded(demand.cpu_milli),
        memory_bytes=bounded(demand.memory_bytes),
        disk_bytes=bounded(demand.disk_bytes),
        containers=1,
    )


def plus(one: Amount, each: Amount, times: int = 1) -> Amount:
    """Return ``one`` and ``times`` the other; a negative number of times takes away."""
    return Amount(
        cpu_milli=one.cpu_milli + times * each.cpu_milli,
        memory_bytes=one.memory_bytes + times * each.memory_bytes,
        disk_bytes=one.disk_bytes + times * each.disk_bytes,
        containers=one.containers + times * each.containers,
    )


def counts_in(pool: str, pools: Sequence[str]) -> bool:
    """Whether a job that names ``pools`` counts against a quota on ``pool``."""
    return pool == ALL_POOLS or not pools or pool in pools


def room(ceiling: Ceiling, used: Amount, each: Amount) -> tuple[int, str] | None:
    """Return how many more of ``each`` fit under ``ceiling``, and the field that holds back more.

    None is without limit.
    """
    fits = [
        (max(0, limit - getattr(used, field)) // getattr(each, field), field)
        for field in FIELDS
        if (limit := getattr(ceiling, field)) is not None and getattr(each, field) > 0
    ]
    return min(fits, key=lambda fit: fit[0], default=None)


def passed(ceiling: Ceiling, before: Amount, after: Amount) -> tuple[str, ...]:
    """Return the fields in which ``after`` is over ``ceiling`` and more than ``before`` was.

    What was over already, because the ceiling was lowered, may stay: only growth is refused.
    """
    return tuple(
        field
        for field in FIELDS
        if (limit := getattr(ceiling, field)) is not None
        and getattr(after, field) > max(limit, getattr(before, field))
    )


def whose(quota: Quota, field: str) -> str:
    """Return the name of one ceiling: ``memory quota of user "ads" on pool far``."""
    where = "" if quota.pool == ALL_POOLS else f" on pool {quota.pool}"
    return f'{FIELDS[field]} quota of user "{quota.user}"{where}'


def shown(field: str, value: int) -> str:
    """Write an amount of ``field`` as people read it."""
    if field == "cpu_milli":
        return format_cpu(value)
    return str(value) if field == "containers" else format_bytes(value)
