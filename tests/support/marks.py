"""Marks for all tests of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest


def needs_root(items: Iterable[pytest.Item], folder: Path, *, timeout_s: int = 0, missing: str = "") -> None:
    """Mark the tests below ``folder`` as needing root; skip them without it.

    They are also skipped if ``missing``, the reason why they cannot run, is not empty. ``timeout_s`` is
    their time limit; 0 means the default.
    """
    why = "needs root" if os.geteuid() != 0 else missing
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.root)
            if timeout_s:
                item.add_marker(pytest.mark.timeout(timeout_s))
            if why:
                item.add_marker(pytest.mark.skip(reason=why))
