"""Indexes of the groups table: which groups belong to a job's name, and which refer to it.

The value of each is (user, name of a job): affinity and anti-affinity are between jobs of one owner.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from galaxy.ids import job_name
from galaxy.model.stored.container import Group

NAMED: Final = "named"
FOLLOWS: Final = "follows"
REPELS: Final = "repels"


def _named(row: Group) -> tuple[Hashable, ...]:
    return () if row.order.remove else ((row.order.user, job_name(row.group)),)


def _follows(row: Group) -> tuple[Hashable, ...]:
    return tuple((row.order.user, name) for name in sorted(set(row.order.demand.constraints.affinity)))


def _repels(row: Group) -> tuple[Hashable, ...]:
    return tuple((row.order.user, name) for name in sorted(set(row.order.demand.constraints.anti_affinity)))


GROUP_INDEXES: Final[Mapping[str, Callable[[Group], tuple[Hashable, ...]]]] = {
    NAMED: _named,
    FOLLOWS: _follows,
    REPELS: _repels,
}
