"""The query for usage, answered from the rows that ResMan stores, outside AppMaster's loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from galaxy.accounting.integrals import day_of
from galaxy.model.api.usage import ListUsage, UsagePage
from galaxy.model.base import Struct
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import RESMAN
from galaxy.model.stored.account import Account, DayUsage
from galaxy.operations.authz import SELF, is_operator
from galaxy.operations.declaration import Caller, query
from galaxy.operations.paging import PAGE_ROWS_MAX, page_of_names

TRIES_MAX: Final = 3
"""How often a page is read while its accounts change meanwhile."""

N = TypeVar("N", bound=Struct)


class UsageReader(Protocol):
    """The reads that the query needs from Nexus."""

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[N]) -> dict[str, N]: ...
    def read_names(self, role: str, table: str) -> list[str]: ...
    def heartbeats_of(self, agents: Sequence[str]) -> HeartbeatsRead: ...


@query(ListUsage, authority=SELF)
def list_usage(nexus: UsageReader, body: ListUsage, caller: Caller) -> UsagePage:
    """List usage by user, job, pool and day. Users see what was accounted since they were added.

    When an account changes, its interval moves to a row. So a page is read again if that happened meanwhile:
    otherwise the interval could be listed twice, or not at all.
    """
    body = _for_caller(body, caller)
    for _ in range(TRIES_MAX):
        days = _days(nexus, body)
        names, after = page_of_names(sorted(days), replace(body, limit=_accounts_max(body, days)))
        keys = [key for name in names for key in days[name]]
        accounts = nexus.read_some(RESMAN, "accounts", names, Account)
        rows = nexus.read_some(RESMAN, "usage", keys, DayUsage)
        now_s = nexus.heartbeats_of(()).now_s
        again = nexus.read_some(RESMAN, "accounts", names, Account)
        if accounts == again and keys == _keys_of(_days(nexus, body), names):
            break
    return UsagePage(rows=tuple(rows.values()), open=tuple(accounts.values()), now_s=now_s, next=after)


def _for_caller(body: ListUsage, caller: Caller) -> ListUsage:
    if caller.user is None or is_operator(caller.user):
        return body
    since = day_of(caller.user.created_s)
    return replace(body, user=caller.name, first=max(body.first, since))


def _days(nexus: UsageReader, body: ListUsage) -> dict[str, list[str]]:
    """Return the keys of rows in the range of days, by account; an account that is open may have none."""
    found: dict[str, list[str]] = {}
    for name in nexus.read_names(RESMAN, "accounts"):
        if _is_of(name, body.user):
            found[name] = []
    for key in nexus.read_names(RESMAN, "usage"):
        name, _, number = key.rpartition("/")
        day = int(number) if number.isdecimal() else 0
        if _is_of(name, body.user) and body.first <= day <= (body.last or day):
            found.setdefault(name, []).append(key)
    return found


def _is_of(account: str, user: str) -> bool:
    return not user or account.rsplit("/", 2)[0] == user


def _keys_of(days: Mapping[str, list[str]], names: Sequence[str]) -> list[str]:
    return [key for name in names for key in days.get(name, ())]


def _accounts_max(body: ListUsage, days: Mapping[str, list[str]]) -> int:
    """Return how many accounts a page may have, so that its rows are not many more than a page's."""
    most = max(map(len, days.values()), default=0)
    return max(1, min(body.limit, PAGE_ROWS_MAX // max(1, most)))
