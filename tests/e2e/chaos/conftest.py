"""These tests need root, because their clusters run real containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.marks import needs_root

SLOWER = float(os.environ.get("GALAXY_TEST_CHAOS_ALLOWANCE", "2.5"))
"""Multiplies the promised times; 1 asserts them unchanged.

A machine with two cores that runs other tests at the same time is slower by about this factor.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent)


@pytest.fixture
def slower() -> float:
    """The factor by which this machine may exceed the promised times."""
    return SLOWER
