"""Pages contain every row once and in order, for any limit; an invalid cursor is refused."""

from __future__ import annotations

import pytest

from galaxy.errors import UsageError
from galaxy.model.api.body import PAGE_MAX
from galaxy.model.api.users import ListUsers
from galaxy.model.base import decode
from galaxy.operations.paging import page_of, sortable

ROWS = [f"user{number:02d}" for number in range(23)]


def pages(rows: list[str], limit: int) -> list[list[str]]:
    found, after = [], ""
    while True:
        page, after = page_of(rows, lambda row: (row,), ListUsers(limit=limit, after=after))
        found.append(page)
        if not after:
            return found


@pytest.mark.parametrize("limit", [1, 5, 22, 23, 24, PAGE_MAX])
def test_pages_together_have_every_row_once_and_in_order(limit: int) -> None:
    found = pages(list(reversed(ROWS)), limit)
    assert [row for page in found for row in page] == ROWS
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1], "an empty last page costs a request"


def test_empty_list_is_one_empty_page() -> None:
    assert pages([], 5) == [[]]


def test_row_removed_between_two_pages_does_not_shift_the_others() -> None:
    first, after = page_of(ROWS, lambda row: (row,), ListUsers(limit=3))
    left = [row for row in ROWS if row not in ("user01", "user02")]
    second, _ = page_of(left, lambda row: (row,), ListUsers(limit=3, after=after))
    assert (first, second) == (["user00", "user01", "user02"], ["user03", "user04", "user05"])


@pytest.mark.parametrize("cursor", ["!", "e30", "WzFd", "é", "a" * 101])
def test_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(UsageError, match="is not a cursor"):
        page_of(ROWS, lambda row: (row,), ListUsers(after=cursor))


def test_body_without_a_limit_asks_for_a_page_of_the_default_length() -> None:
    assert decode("{}", ListUsers) == ListUsers()


def test_times_as_sortable_text_have_the_order_of_numbers() -> None:
    times = [0.0, 9.5, 10.0, 999_999_999.9, 1_000_000_000.0, 1_800_000_000.000001]
    assert sorted(map(sortable, times)) == list(map(sortable, times))
