"""Quotas: how much the containers of one user may ask together, everywhere or in one pool."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from galaxy.model.base import Noun
from galaxy.model.user import ALL_POOLS, PoolName, UserName

Limit = Annotated[int, Meta(ge=0, le=1 << 52)]


class Amount(Noun, frozen=True, kw_only=True):
    """So much of everything that a quota counts: millicores, bytes, containers."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    containers: int = 0


class Ceiling(Noun, frozen=True, kw_only=True):
    """The most that may be asked of each; None is without limit. tmpfs counts as memory."""

    cpu_milli: Limit | None = None
    memory_bytes: Limit | None = None
    disk_bytes: Limit | None = None
    containers: Limit | None = None


class Quota(Noun, frozen=True, kw_only=True):
    """The ceiling of ``user`` over all pools, or over what may run in one ``pool``."""

    user: UserName
    ceiling: Ceiling
    pool: PoolName = ALL_POOLS
    by: str = ""
    at_s: float = 0.0


class QuotaOrder(Noun, frozen=True, kw_only=True):
    """AppMaster to ResMan: these are the quotas, all of them; who is not named has none.

    ``epoch`` is AppMaster's and ``serial`` counts its changes: what is not newer changes nothing.
    """

    epoch: int
    serial: int
    quotas: tuple[Quota, ...] = ()


class QuotaAck(Noun, frozen=True, kw_only=True):
    """ResMan to AppMaster: the last ``QuotaOrder`` that it obeyed."""

    epoch: int
    serial: int


class QuotaView(Noun, frozen=True, kw_only=True):
    """A ceiling, what the user's jobs want under it, and what of that is placed (``used``).

    All three are what containers ask, not what they consume.
    """

    user: str
    pool: str
    ceiling: Ceiling
    wanted: Amount
    used: Amount
    by: str = ""
    at_s: float = 0.0
