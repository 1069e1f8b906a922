"""Paths as people write them in job files."""

from __future__ import annotations

from pathlib import Path

from galaxy.errors import SpecError


def beside(base: Path, text: str) -> Path:
    """Return the path that ``text`` means in a file of folder ``base``; ``~`` and ``~user`` are homes.

    Raises:
        SpecError: there is no such user.
    """
    try:
        return base / Path(text).expanduser()
    except RuntimeError as error:
        raise SpecError(f'cannot find "{text}": there is no such home folder') from error
