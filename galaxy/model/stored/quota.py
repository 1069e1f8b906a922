"""Quotas: how much the containers of one user may ask for together, everywhere or in one pool."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.resources import Ceiling
from galaxy.model.stored.user import ALL_POOLS, PoolName, UserName


class Quota(Struct, frozen=True, kw_only=True):
    """The ceiling of ``user`` over all pools, or over what may run in one ``pool``.

    ``by`` set it at ``at_s``, Unix seconds. Memory includes tmpfs volumes.
    """

    user: UserName
    ceiling: Ceiling
    pool: PoolName = ALL_POOLS
    by: str = ""
    at_s: float = 0.0
