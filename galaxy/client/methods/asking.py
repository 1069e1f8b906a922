"""Requests to leaders: what the methods of every subject are made of."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from galaxy.client.argument_types import check_methods
from galaxy.client.transport import RequestTransport
from galaxy.model.api.body import PAGE_DEFAULT, Body, Page, PagedBody
from galaxy.model.base import Struct

R = TypeVar("R", bound=Struct)
P = TypeVar("P", bound=Page)
T = TypeVar("T")


class Asking:
    """A connection that asks leaders and reads lists page by page.

    Public methods of all classes derived from it check the types of their arguments.
    """

    def __init_subclass__(cls) -> None:
        check_methods(cls)

    page_limit: int = PAGE_DEFAULT
    """Number of rows in one request for a list. Lists are complete with any value."""
    timeout_s: float
    _transport: RequestTransport

    def _all(self, body: PagedBody[P], rows: Callable[[P], Iterable[T]]) -> list[T]:
        """Return the rows of every page of a list."""
        found: list[T] = []
        after = body.after
        while True:
            page = self._ask(msgspec.structs.replace(body, limit=self.page_limit, after=after))
            found += rows(page)
            if not page.next:
                return found
            after = page.next

    def _ask(self, body: Body[R], key: str = "") -> R:
        """Return the leader's answer to ``body``; without a ``key`` it gets a random one."""
        return self._transport.ask(body, key=key or secrets.token_hex(16), timeout_s=self.timeout_s)
