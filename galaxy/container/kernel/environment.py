"""The environment of Galaxy's own processes: what configures them, not what changes Python or libc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_DROPPED: Final = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "DYLD_")
"""Prefixes of variables that change how every program or every Python behaves."""
_KEPT: Final = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
_SET: Final = {"PYTHONUTF8": "1"}
"""Text in logs and pipes is UTF-8, whatever the locale of the caller."""


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` without variables that change the interpreter, the loader or the allocator."""
    kept = {name: value for name, value in environ.items() if name in _KEPT or not name.startswith(_DROPPED)}
    return kept | _SET
