"""All of these need root: they kill and stop parts of clusters in real containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.marks import needs_root

ALLOWANCE = float(os.environ.get("GALAXY_TEST_CHAOS_ALLOWANCE", "2.5"))
"""By how much this machine may be slower than promised times; 1 asks for them as they are.

Two cores that are shared with whatever else runs are slower than an idle machine by so much.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent)


@pytest.fixture
def allowance() -> float:
    return ALLOWANCE
