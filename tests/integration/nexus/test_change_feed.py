"""The change feed on a real Redis: waiting readers, and the loss of its stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from galaxy.driver.interfaces import FeedRead, Grant
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from tests.support.redis_server import RedisServer

ROLE = "tally"


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="t")
    yield nexus
    nexus.close()


@pytest.fixture
def grant(nexus: Nexus) -> Grant:
    granted = nexus.campaign(ROLE, "a", ttl_s=60.0, address="a")
    assert isinstance(granted, Grant)
    return granted


def put(key: str) -> list[TableChange]:
    return [TableChange(table="counts", key=key, value=b"1")]


def test_waiting_reader_wakes_when_something_is_committed(nexus: Nexus, grant: Grant) -> None:
    nexus.commit(grant, 1, put("x"), [])
    start = nexus.read_changes(ROLE, None, 0.0).position
    reads: list[FeedRead] = []
    reader = threading.Thread(target=lambda: reads.append(nexus.read_changes(ROLE, start, 60.0)))
    reader.start()
    nexus.commit(grant, 2, put("y"), [])
    reader.join(30.0)
    assert [change.key for change in reads[0].changes] == ["y"]


def test_reader_of_a_stream_that_is_gone_must_reload(nexus: Nexus, grant: Grant) -> None:
    nexus.commit(grant, 1, put("x"), [])
    start = nexus.read_changes(ROLE, None, 0.0).position
    nexus.commit(grant, 2, put("y"), [])
    nexus.client.delete(keys.changes(ROLE))
    assert nexus.read_changes(ROLE, start, 0.0).reload


def test_stream_is_bounded(nexus: Nexus, grant: Grant) -> None:
    for serial in range(1, 5001):
        nexus.commit(grant, serial, put("x"), [])
    assert nexus.client.xlen(keys.changes(ROLE)) < 4400
