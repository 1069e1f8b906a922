"""Nexus and a publisher find the current master through Sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from galaxy.driver.interfaces import FeedRead, Grant
from galaxy.driver.warm_tables import WarmTables
from galaxy.errors import GalaxyError, Refused, Unreachable
from galaxy.model.base import encode
from galaxy.model.step import Send
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus import Nexus, keys
from galaxy.nexus.publisher import Publisher
from tests.support.sentinel import DOWN_AFTER_MS, SentinelSetup, running_sentinel_setup
from tests.support.tally import Add, Count
from tests.support.tls import NEEDED

SEND = Send(queue="agent.h1", task="galaxy.container.apply", body=Add(name="x"), id="1")


@pytest.fixture(scope="module")
def redises() -> Iterator[SentinelSetup]:
    with running_sentinel_setup() as setup:
        yield setup


@pytest.fixture
def nexus(redises: SentinelSetup) -> Iterator[Nexus]:
    redises.await_complete()
    with Nexus.connect(redises.url("resman"), name="t") as opened:
        yield opened


def _lead(nexus: Nexus, owner: str = "o") -> Grant:
    grant = _retry(lambda: nexus.campaign("resman", owner, ttl_s=60.0, address="a"))
    assert isinstance(grant, Grant)
    return grant


def _retry(call: Callable[[], object], timeout_s: float = 30) -> object:
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except Unreachable:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_commit_returns_when_every_replica_has_it(redises: SentinelSetup, nexus: Nexus) -> None:
    grant = _lead(nexus)
    for serial in range(20):
        value = str(serial).encode()
        nexus.commit(grant, serial, [TableChange(table="t", key="k", value=value)], ())
        found = {server.client().hget(keys.table("resman", "t"), "k") for server in redises.servers}
        assert found == {value}
    nexus.release(grant)


def test_master_after_a_kill_has_every_commit_of_the_killed_one(redises: SentinelSetup) -> None:
    _check_failover_after_kill(redises)


@pytest.mark.skipif(not NEEDED, reason="needs openssl and a server with TLS")
def test_master_after_a_kill_has_every_commit_of_the_killed_one_over_tls() -> None:
    with running_sentinel_setup(tls=True) as secured:
        _check_failover_after_kill(secured)


def _check_failover_after_kill(redises: SentinelSetup) -> None:
    redises.await_complete()
    nexus = Nexus.connect(redises.url("resman"), name="t")
    grant = _lead(nexus)
    publisher = Publisher(redises.url("resman"), name="t", sentinels=nexus.sentinels)
    publisher.publish([SEND])
    nexus.commit(grant, 1, [TableChange(table="t", key="k", value=b"kept")], ())
    old = redises.master()
    old.kill()
    _retry(lambda: nexus.commit(grant, 2, [TableChange(table="t", key="l", value=b"new")], ()))
    publisher.publish([SEND])
    publisher.close()
    new = redises.await_master(old)
    found: Any = new.client().hgetall(keys.table("resman", "t"))
    assert (found[b"k"], found[b"l"]) == (b"kept", b"new")
    assert new.client().llen("agent.h1") >= 1
    nexus.release(grant)
    nexus.close()
    old.start()


def test_standby_equals_the_store_of_the_master_after_a_kill(redises: SentinelSetup, nexus: Nexus) -> None:
    grant = _lead(nexus)
    with Nexus.connect(redises.url("resman"), name="standby") as other:
        rows: Table[Count] = Table("counts", Count)
        warm = WarmTables("resman", other, [rows])

        def put(serial: int) -> None:
            row = encode(Count(name="k", total=serial))
            nexus.commit(grant, serial, [TableChange(table="counts", key=f"k{serial}", value=row)], ())

        def follow() -> bool:
            read = warm.read(0.0)
            warm.apply(read)
            return isinstance(read, FeedRead) and read.current

        put(1)
        while not follow():
            pass
        put(2)
        old = redises.master()
        old.kill()
        _retry(lambda: put(3))
        assert _retry(warm.catch_up)  # Every confirmed commit is at the new master, so the chain has no gap.
        assert dict(rows.items()) == other.read_table("resman", "counts", Count)
        assert len(rows) == 3
        redises.await_master(old)
    _retry(lambda: nexus.release(grant))
    old.start()


def test_commit_that_a_live_replica_lacks_is_not_confirmed(redises: SentinelSetup, nexus: Nexus) -> None:
    grant = _lead(nexus)
    behind = next(server for server in redises.servers if server is not redises.master())
    began_s = time.monotonic()
    behind.pause()
    try:
        # Once Sentinels consider it dead, it cannot become master and need not confirm.
        _retry(lambda: nexus.commit(grant, 1, [TableChange(table="t", key="k", value=b"v")], ()))
        assert time.monotonic() - began_s > 0.9 * DOWN_AFTER_MS / 1000
    finally:
        behind.resume()
        _retry(lambda: nexus.release(grant))


def test_epoch_after_a_failover_is_higher_than_before(redises: SentinelSetup, nexus: Nexus) -> None:
    first = _lead(nexus)
    nexus.release(first)
    old = redises.master()
    redises.failover()
    redises.await_master(old)
    second = _lead(nexus, "p")
    assert second.epoch > first.epoch
    nexus.release(second)


def test_master_name_that_no_sentinel_knows_is_refused_with_the_known_names(redises: SentinelSetup) -> None:
    with pytest.raises(Unreachable, match="no Sentinel knows a master 'galax'; known: galaxy"):
        Nexus.connect(redises.url(master="galax"), name="t")


def test_wrong_password_of_sentinels_is_refused_with_the_name_of_its_parameter(
    redises: SentinelSetup,
) -> None:
    with pytest.raises(Refused, match="sentinel_password"):
        Nexus.connect(redises.url(sentinel_password="wrong"), name="t")


def test_connect_fails_in_time_when_no_sentinel_answers() -> None:
    began_s = time.monotonic()
    with pytest.raises(GalaxyError, match=r"Sentinel 127\.0\.0\.1:1"):
        Nexus.connect("sentinel://127.0.0.1:1,127.0.0.1:2/0?master=galaxy", name="t", timeout_s=3)
    assert time.monotonic() - began_s < 10
