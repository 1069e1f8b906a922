"""A lock test like Jepsen's: clients add to a set under a lock and sometimes sleep past their lease."""

import random
import threading
import time

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.errors import NotLeader
from galaxy.model.base import Struct, encode
from galaxy.model.stored.table import TableChange
from galaxy.nexus import keys
from galaxy.nexus.nexus import Nexus
from tests.support.redis_server import RedisServer

ROLE = "locktest"
CLIENTS = 5
LEASE_S = 2.0
PAUSE_S = 2.5
LASTS_S = 14.0


class Numbers(Struct, frozen=True, kw_only=True):
    """The set: every number that a client added."""

    numbers: tuple[int, ...] = ()


def add_under_lock(nexus: Nexus, number: int, chance: random.Random, *, fenced: bool) -> bool:
    """Try once to add ``number``; return whether it was acknowledged."""
    grant = nexus.campaign(ROLE, f"client-{number}", ttl_s=LEASE_S, address="here")
    if not isinstance(grant, Grant):
        nexus.await_release(ROLE, grant.remaining_s)
        return False
    rows = nexus.read_table(ROLE, "set", Numbers)
    numbers = rows["set"].numbers if "set" in rows else ()
    if chance.random() < 0.4:
        time.sleep(PAUSE_S)  # Longer than the lease: this is the fault under test.
    value = encode(Numbers(numbers=(*numbers, number)))
    try:
        if fenced:
            nexus.commit(grant, 1, [TableChange(table="set", key="set", value=value)], ())
        else:
            nexus.client.hset(keys.table(ROLE, "set"), "set", value)
        return True
    except NotLeader:
        return False
    finally:
        nexus.release(grant)


def lost_writes(url: str, *, fenced: bool) -> tuple[int, set[int]]:
    """Let clients add numbers for a while; return how many were acknowledged, and those that are lost."""
    acknowledged: set[int] = set()
    until_s = time.monotonic() + LASTS_S

    def client(which: int) -> None:
        nexus = Nexus.connect(url, name=f"client-{which}")
        chance = random.Random(which)
        number = which
        while time.monotonic() < until_s:
            number += CLIENTS
            if add_under_lock(nexus, number, chance, fenced=fenced):
                acknowledged.add(number)
        nexus.close()

    threads = [threading.Thread(target=client, args=(which,)) for which in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LASTS_S + 30)
    nexus = Nexus.connect(url, name="reader")
    stored = set(nexus.read_table(ROLE, "set", Numbers)["set"].numbers)
    nexus.close()
    return len(acknowledged), acknowledged - stored


@pytest.mark.timeout(90)
def test_no_acknowledged_write_is_lost_with_fencing(redis_server: RedisServer) -> None:
    acknowledged, lost = lost_writes(redis_server.url, fenced=True)
    assert acknowledged  # A slow host acknowledges few of them.
    assert lost == set()


@pytest.mark.timeout(90)
def test_acknowledged_writes_are_lost_without_fencing(redis_server: RedisServer) -> None:
    _, lost = lost_writes(redis_server.url, fenced=False)
    assert lost != set()
