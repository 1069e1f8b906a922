"""One agent for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agent.harness import Agent, one_agent
from tests.support.marks import needs_root
from tests.support.redis_server import RedisServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent)


@pytest.fixture
def agent(redis_server: RedisServer) -> Iterator[Agent]:
    with one_agent(redis_server.url) as agent:
        yield agent
