"""Operations on usage: what each user's jobs held and used, day by day."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Page, PagedBody
from galaxy.model.stored.account import Account, DayUsage

Day = Annotated[int, Meta(ge=0, le=1_000_000)]
"""Number of a day since 1970-01-01, UTC; 0 means no limit."""


class UsagePage(Page, frozen=True, kw_only=True):
    """Rows by user, job, pool and day, and the accounts whose present interval is not in a row yet.

    ``now_s`` is Redis' clock at the reading, Unix seconds.
    """

    rows: tuple[DayUsage, ...] = ()
    open: tuple[Account, ...] = ()
    now_s: float = 0.0


class ListUsage(PagedBody[UsagePage], frozen=True, kw_only=True):
    """List what ``user`` held and used from ``first`` to ``last``, both days included.

    An empty ``user`` means every user for operators, and the caller for others. ``limit`` counts accounts.
    """

    op: ClassVar[str] = "galaxy.usage.list"
    user: str = ""
    first: Day = 0
    last: Day = 0
