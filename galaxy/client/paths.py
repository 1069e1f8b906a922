"""Paths in job files."""

from __future__ import annotations

from pathlib import Path

from galaxy.errors import SpecError


def resolve_path(base: Path, text: str) -> Path:
    """Return the path ``text`` of a job file in folder ``base``; ``~`` and ``~user`` are home folders.

    Raises:
        SpecError: there is no such home folder.
    """
    try:
        return base / Path(text).expanduser()
    except RuntimeError as error:
        raise SpecError(f'cannot find "{text}": there is no such home folder') from error
