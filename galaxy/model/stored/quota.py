"""Quotas: how much the containers of one user may ask together, everywhere or in one pool."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.stored.user import ALL_POOLS, PoolName, UserName

Limit = Annotated[int, Meta(ge=0, le=1 << 52)]


class Amount(Struct, frozen=True, kw_only=True):
    """So much of everything that a quota counts: millicores, bytes, containers."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    containers: int = 0


class Ceiling(Struct, frozen=True, kw_only=True):
    """The most that may be asked of each; None is without limit. tmpfs counts as memory."""

    cpu_milli: Limit | None = None
    memory_bytes: Limit | None = None
    disk_bytes: Limit | None = None
    containers: Limit | None = None


class Quota(Struct, frozen=True, kw_only=True):
    """The ceiling of ``user`` over all pools, or over what may run in one ``pool``."""

    user: UserName
    ceiling: Ceiling
    pool: PoolName = ALL_POOLS
    by: str = ""
    at_s: float = 0.0
