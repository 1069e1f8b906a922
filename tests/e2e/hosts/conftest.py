"""One fleet for all tests of this folder. Tests remove their jobs, and the fixture restores the links."""

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
def shared_fleet() -> Iterator[Fleet]:
    with Network() as network:
        fleet = Fleet(network)
        try:
            fleet.start()
            yield fleet
        finally:
            left = fleet.end()
    assert not left


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet. All links work at full speed before and after the test."""
    yield shared_fleet
    for host in (shared_fleet.leader_host, shared_fleet.redis, *shared_fleet.agents.values()):
        host.reconnect()
        host.fast()
