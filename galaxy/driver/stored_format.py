"""The format of a role's tables, stored with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from galaxy.errors import GalaxyError
from galaxy.model.base import Struct
from galaxy.model.stored.table import Table

STORED_FORMAT: Final = 3
"""Format of the tables that we write. As with messages (``galaxy.model.base``), adding fields does not
change it; a change that older leaders would misread does."""
STORED_READABLE: Final = range(3, 4)
FORMAT_KEY: Final = "tables"


class StoredFormat(Struct, frozen=True, kw_only=True):
    """The format of a role's tables, and who wrote it: a table of its own, with one row."""

    format: int
    settings: dict[str, str] = {}
    """Settings of the last leader, by name, which should be the same in every process of the role."""


def format_table() -> Table[StoredFormat]:
    return Table("format", StoredFormat)


def check_format(role: str, table: Table[StoredFormat]) -> None:
    """Check that this release reads the tables whose format is in ``table``.

    Raises:
        GalaxyError: a release with another format wrote them.
    """
    stored = table.get(FORMAT_KEY)
    if stored is not None and stored.format not in STORED_READABLE:
        raise GalaxyError(
            f"cannot lead {role}: its state in Redis has format {stored.format}, "
            f"and this release reads only {_readable_formats()}",
            details=["no container is touched, and nothing is written"],
            hint="run the release that wrote the state; or end its jobs with that release (galaxy down),"
            " and start this one with an empty Redis database; see Upgrading in docs/operations.md",
        )


def different_settings(stored: StoredFormat | None, own: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return the name, the last leader's value and the own value of each setting in which they differ."""
    before = {} if stored is None else stored.settings
    return [
        (name, before[name], own[name])
        for name in sorted(before.keys() & own.keys())
        if before[name] != own[name]
    ]


def _readable_formats() -> str:
    low, high = STORED_READABLE[0], STORED_READABLE[-1]
    return f"format {low}" if low == high else f"formats {low} to {high}"
