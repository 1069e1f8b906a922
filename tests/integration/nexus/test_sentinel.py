"""Nexus and a publisher find the master through Sentinels while it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.errors import GalaxyError, Refused, Unreachable
from galaxy.model.step import Send
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from galaxy.nexus.publisher import Publisher
from tests.support.sentinel import DOWN_AFTER_MS, Guarded, guarded
from tests.support.tally import Add
from tests.support.tls import NEEDED

SEND = Send(queue="agent.h1", task="galaxy.container.apply", body=Add(name="x"), id="1")


@pytest.fixture(scope="module")
def redises() -> Iterator[Guarded]:
    with guarded() as made:
        yield made


@pytest.fixture
def nexus(redises: Guarded) -> Iterator[Nexus]:
    redises.await_whole()
    with Nexus.connect(redises.url("resman"), name="t") as opened:
        yield opened


def _lead(nexus: Nexus, owner: str = "o") -> Grant:
    grant = _insist(lambda: nexus.campaign("resman", owner, ttl_s=60.0, address="a"))
    assert isinstance(grant, Grant)
    return grant


def _insist(call: Callable[[], object], timeout_s: float = 30) -> object:
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except Unreachable:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_every_replica_has_a_commit_when_it_returns(redises: Guarded, nexus: Nexus) -> None:
    grant = _lead(nexus)
    for serial in range(20):
        value = str(serial).encode()
        nexus.commit(grant, serial, [TableChange(table="t", key="k", value=value)], ())
        found = {server.client().hget(keys.table("resman", "t"), "k") for server in redises.servers}
        assert found == {value}
    nexus.release(grant)


def test_after_a_master_is_killed_the_next_one_has_every_commit(redises: Guarded) -> None:
    _kill_under(redises)


@pytest.mark.skipif(not NEEDED, reason="needs openssl and a server with TLS")
def test_killed_master_is_replaced_over_tls_too() -> None:
    with guarded(tls=True) as secured:
        _kill_under(secured)


def _kill_under(redises: Guarded) -> None:
    redises.await_whole()
    nexus = Nexus.connect(redises.url("resman"), name="t")
    grant = _lead(nexus)
    publisher = Publisher(redises.url("resman"), name="t", sentinels=nexus.sentinels)
    publisher.publish([SEND])
    nexus.commit(grant, 1, [TableChange(table="t", key="k", value=b"kept")], ())
    old = redises.master()
    old.kill()
    _insist(lambda: nexus.commit(grant, 2, [TableChange(table="t", key="l", value=b"new")], ()))
    publisher.publish([SEND])
    publisher.close()
    new = redises.await_master(old)
    found: Any = new.client().hgetall(keys.table("resman", "t"))
    assert (found[b"k"], found[b"l"]) == (b"kept", b"new")
    assert new.client().llen("agent.h1") >= 1
    nexus.release(grant)
    nexus.close()
    old.start()


def test_commit_that_a_live_replica_does_not_have_is_not_confirmed(redises: Guarded, nexus: Nexus) -> None:
    grant = _lead(nexus)
    behind = next(server for server in redises.servers if server is not redises.master())
    began_s = time.monotonic()
    behind.pause()
    try:
        # Once Sentinels consider it dead it would not be chosen, and need not confirm.
        _insist(lambda: nexus.commit(grant, 1, [TableChange(table="t", key="k", value=b"v")], ()))
        assert time.monotonic() - began_s > 0.9 * DOWN_AFTER_MS / 1000
    finally:
        behind.resume()
        _insist(lambda: nexus.release(grant))


def test_epoch_after_a_failover_is_higher_than_any_before(redises: Guarded, nexus: Nexus) -> None:
    first = _lead(nexus)
    nexus.release(first)
    old = redises.master()
    redises.failover()
    redises.await_master(old)
    second = _lead(nexus, "p")
    assert second.epoch > first.epoch
    nexus.release(second)


def test_master_that_no_sentinel_knows_is_named_with_those_they_know(redises: Guarded) -> None:
    with pytest.raises(Unreachable, match="no Sentinel knows a master 'galax'; known: galaxy"):
        Nexus.connect(redises.url(master="galax"), name="t")


def test_wrong_sentinel_password_is_named_as_sentinels(redises: Guarded) -> None:
    with pytest.raises(Refused, match="sentinel_password"):
        Nexus.connect(redises.url(sentinel_password="wrong"), name="t")


def test_sentinels_that_do_not_answer_are_given_up_in_time() -> None:
    began_s = time.monotonic()
    with pytest.raises(GalaxyError, match=r"Sentinel 127\.0\.0\.1:1"):
        Nexus.connect("sentinel://127.0.0.1:1,127.0.0.1:2/0?master=galaxy", name="t", timeout_s=3)
    assert time.monotonic() - began_s < 10
