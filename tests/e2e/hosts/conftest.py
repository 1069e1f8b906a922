"""One fleet for all tests of this folder; each leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.marks import needs_root
from tests.support.netns import Network, missing

from .fleet import Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent, timeout_s=180, missing=missing())


@pytest.fixture(scope="session")
def own_fleet() -> Iterator[Fleet]:
    with Network() as network:
        fleet = Fleet(network)
        try:
            fleet.start()
            yield fleet
        finally:
            left = fleet.end()
    assert not left


@pytest.fixture
def fleet(own_fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, with all links whole before and after."""
    yield own_fleet
    print(own_fleet.words())  # Shown with a failure.
    for host in (own_fleet.heads, own_fleet.redis, *own_fleet.agents.values()):
        host.join()
        host.fast()
