"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer, running_server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis server for one test, without a password."""
    with running_server() as server:
        yield server


@pytest.fixture
def locked_redis_server() -> Iterator[RedisServer]:
    """A Redis server for one test, with the password ``open-sesame``."""
    with running_server("open-sesame") as server:
        yield server
