"""All of these need root: they kill and stop parts of clusters in real containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.marks import needs_root

SLOWER = float(os.environ.get("GALAXY_TEST_CHAOS_ALLOWANCE", "2.5"))
"""Multiplies promised times; 1 asserts them as they are.

Two cores that other tests use at the same time are slower than an idle machine by about this factor.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent)


@pytest.fixture
def slower() -> float:
    """By how much this machine may be slower than the promises."""
    return SLOWER
