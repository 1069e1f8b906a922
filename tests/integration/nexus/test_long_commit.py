"""A long commit is sent in chunks; Redis loses one of them."""

from __future__ import annotations

import pytest
import redis

from galaxy.driver.interfaces import Grant
from galaxy.errors import Unreachable
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys, store
from tests.support.redis_server import RedisServer


class ChunkLosingRedis(redis.Redis):
    """Loses a staged chunk just before the commit takes effect, like a server that was replaced meanwhile."""

    def evalsha(self, sha: str, numkeys: int, *arguments: object) -> object:
        if numkeys > 3:
            self.rpop(keys.staging("resman"))
        return super().evalsha(sha, numkeys, *arguments)  # type: ignore[arg-type]


def test_long_commit_that_lost_a_chunk_writes_nothing_and_is_repeated(redis_server: RedisServer) -> None:
    with Nexus.connect(redis_server.url, name="t") as nexus:
        grant = nexus.campaign("resman", "o", ttl_s=30.0, address="a")
        assert isinstance(grant, Grant)
        value = b'"' + b"x" * store.CHUNK_BYTES + b'"'
        changes = [TableChange(table="t", key=key, value=value) for key in ("a", "b")]
        store_with_loss = store.FencedStore(ChunkLosingRedis.from_url(redis_server.url), "here")
        with pytest.raises(Unreachable, match="lost part of a long commit"):
            store_with_loss.commit(grant, 1, changes, ())
        assert nexus.client.hlen(keys.table("resman", "t")) == 0
        nexus.commit(grant, 1, changes, ())
        assert nexus.client.hlen(keys.table("resman", "t")) == 2
