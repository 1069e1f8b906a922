"""Pages of long lists: rows in the order of their keys, starting after a cursor."""

from __future__ import annotations

import base64
import bisect
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from galaxy.errors import UsageError
from galaxy.model.api.body import PagedBody

T = TypeVar("T")

PAGE_ROWS_MAX: Final = 1000
"""Rows in one page, however many a client asks for: building a page must not stop a leader for long."""
Key = tuple[str, ...]


def page_of(rows: Iterable[T], key: Callable[[T], Key], body: PagedBody[Any]) -> tuple[list[T], str]:
    """Return the first ``body.limit`` of ``rows`` after the cursor ``body.after``, and the next cursor.

    A page has at most ``PAGE_ROWS_MAX`` rows. They come in the order of ``key``, which must be unique. The
    next cursor is empty when no row is left. Adding or removing rows between two pages neither repeats
    nor skips other rows.

    Raises:
        UsageError: ``body.after`` is not a cursor.
    """
    after = _key_of(body.after)
    keyed = ((key(row), index, row) for index, row in enumerate(rows))
    limit = min(body.limit, PAGE_ROWS_MAX)
    first = heapq.nsmallest(limit + 1, (entry for entry in keyed if entry[0] > after))
    shown = first[:limit]
    return [row for _, _, row in shown], _cursor(shown[-1][0]) if len(first) > len(shown) else ""


def page_of_names(names: Sequence[str], body: PagedBody[Any]) -> tuple[Sequence[str], str]:
    """Return the same as ``page_of`` for sorted ``names`` that are their own keys, without sorting.

    Raises:
        UsageError: ``body.after`` is not a cursor.
    """
    after = _key_of(body.after)
    start = bisect.bisect_right(names, after[0]) if after else 0
    shown = names[start : start + min(body.limit, PAGE_ROWS_MAX)]
    return shown, _cursor((shown[-1],)) if start + len(shown) < len(names) else ""


def sortable(seconds: float) -> str:
    """Return a time as text that sorts as the time does."""
    return f"{max(seconds, 0.0):020.6f}"


def _cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _key_of(cursor: str) -> Key:
    """Return the key in ``cursor``; the empty key comes before every other."""
    if not cursor:
        return ()
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(data, type=tuple[str, ...])
    except (ValueError, msgspec.DecodeError) as error:
        raise UsageError(f"{cursor[:40]!r} is not a cursor", hint="pass `next` of the page before") from error
