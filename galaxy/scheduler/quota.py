"""Which quotas a job counts against, and the names of quotas in messages.

A job counts in full against every pool where it may run: the pools that it names, or all pools if it
names none. So the ceiling on a pool holds wherever the containers are placed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from galaxy.model.jobspec.spec import JobType
from galaxy.model.resources import Resource, Resources
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.user import ALL_POOLS

UNCHARGED: Final = ("cpu_milli", "memory_bytes")
"""What best-effort jobs are not charged for."""


def counts_in(pool: str, pools: Sequence[str]) -> bool:
    """Return whether a job that names ``pools`` counts against a quota on ``pool``."""
    return pool == ALL_POOLS or not pools or pool in pools


def charged(amount: Resources, priority: int) -> Resources:
    """Return what of ``amount`` counts for a job of ``priority``.

    Best-effort jobs take CPU and memory that their owners do not use, and lose them at any time, so they
    are not charged for these two.
    """
    if priority < JobType.BEST_EFFORT.priority:
        return amount
    return replace(amount, **dict.fromkeys(UNCHARGED, 0))


def ceiling_name(quota: Quota, resource: Resource) -> str:
    """Return the name of one ceiling: ``memory quota of user "ads" on pool far``."""
    where = "" if quota.pool == ALL_POOLS else f" on pool {quota.pool}"
    return f'{resource.name} quota of user "{quota.user}"{where}'
