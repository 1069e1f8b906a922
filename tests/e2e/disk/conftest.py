"""The parts of one host; everything is removed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.marks import needs_root
from tests.support.parts import Parts, one_host
from tests.support.redis_server import RedisServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent, timeout_s=180)


@pytest.fixture
def parts(redis_server: RedisServer) -> Iterator[Parts]:
    with one_host(redis_server.url, "galaxy-disk-") as parts:
        yield parts
