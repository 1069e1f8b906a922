"""Operations on quotas."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.api.views import QuotaView
from galaxy.model.resources import FIELDS, Ceiling
from galaxy.model.stored.user import ALL_POOLS, PoolName, UserName


class QuotaList(Page, frozen=True, kw_only=True):
    """Quotas by user and pool."""

    quotas: tuple[QuotaView, ...]


class SetQuota(Body[QuotaView], frozen=True, kw_only=True):
    """Change the ceiling of ``user`` over ``pool``.

    Fields of ``ceiling`` that are None stay as they are; ``lift`` names the limits to remove.
    """

    op: ClassVar[str] = "galaxy.quota.set"
    user: UserName
    pool: PoolName = ALL_POOLS
    ceiling: Ceiling = Ceiling()
    lift: tuple[Annotated[str, Meta(pattern=f"^({'|'.join(FIELDS)})$")], ...] = ()


class ListQuotas(PagedBody[QuotaList], frozen=True, kw_only=True):
    """List the quotas of ``user``. Empty means every user for operators, and the caller for others."""

    op: ClassVar[str] = "galaxy.quota.list"
    user: str = ""
