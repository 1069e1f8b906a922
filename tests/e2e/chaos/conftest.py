"""All of these need root: they kill and stop parts of clusters in real containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ALLOWANCE = float(os.environ.get("GALAXY_TEST_CHAOS_ALLOWANCE", "2.5"))
"""By how much this machine may be slower than promised times; 1 asks for them as they are.

Two cores that are shared with whatever else runs are slower than an idle machine by so much.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def allowance() -> float:
    return ALLOWANCE
