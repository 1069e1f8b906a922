"""What the readers of YAML, JSON and TOML share: positions, their one error, and the limit on depth."""

from __future__ import annotations

from typing import Any, Final

from galaxy.model.jobspec.diagnostics import Mark, Path

Marks = dict[Path, Mark]
"""Where each path of a tree is in its text: keys for fields, first characters for items of lists."""

DEPTH_MAX: Final = 32
"""Nesting of lists and fields; a job file needs eight levels."""
TOO_DEEP: Final = f"more than {DEPTH_MAX} levels within each other"


class SyntaxDiagnostic(Exception):
    """A text violates its format at one place."""

    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.text = text


def depth_of(tree: Any) -> int:
    """Return how many levels of dicts and lists ``tree`` has.

    Raises:
        RecursionError: about a thousand or more.
    """
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return 1 + max((depth_of(item) for item in inner), default=0)
