"""Every test of the contract runs with Nexus in memory and with a real server."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.nexus import Nexus, keys
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.redis_server import running_server

ROLE = "tally"
TTL_S = 0.25


@dataclass(frozen=True)
class World:
    """Two Nexus over the same data, as two processes have them, and a function that lets time pass."""

    nexus: Nexus | MemoryNexus
    other: Nexus | MemoryNexus
    let_pass: Callable[[float], None]
    back_up: Callable[[], Callable[[], None]]
    """Returns a function that sets tables and feed back, as a server does that lost its last writes."""

    def trim_feed(self, entries_max: int) -> None:
        """Drop the oldest entries of the role's feed."""
        if isinstance(self.nexus, MemoryNexus):
            self.nexus.trim_feed(ROLE, entries_max)
        else:
            self.nexus.client.xtrim(keys.changes(ROLE), maxlen=entries_max, approximate=False)

    def grant(self, owner: str = "a", ttl_s: float = 60.0) -> Grant:
        """Win the election; no other owner may hold the lease."""
        answer = self.nexus.campaign(ROLE, owner, ttl_s=ttl_s, address=f"{ROLE}@{owner}")
        assert isinstance(answer, Grant)
        return answer


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        now_s = [1_000_000.0]

        def let_pass(seconds: float) -> None:
            now_s[0] += seconds

        memory = MemoryNexus(lambda: now_s[0])
        yield World(nexus=memory, other=memory, let_pass=let_pass, back_up=lambda: _back_up_memory(memory))
        return
    with running_server() as server:
        nexus = Nexus.connect(server.url, name="contract")
        other = Nexus.connect(server.url, name="contract-other")
        yield World(
            nexus=nexus,
            other=other,
            let_pass=lambda seconds: bool(threading.Event().wait(seconds)),
            back_up=lambda: _back_up_redis(nexus),
        )
        nexus.close()
        other.close()


def _back_up_memory(nexus: MemoryNexus) -> Callable[[], None]:
    names = ("_tables", "_feeds", "_committed")
    kept = copy.deepcopy({name: getattr(nexus, name) for name in names})

    def restore() -> None:
        for name, value in copy.deepcopy(kept).items():
            setattr(nexus, name, value)

    return restore


def _back_up_redis(nexus: Nexus) -> Callable[[], None]:
    client: Any = nexus.client
    lock = keys.lock(ROLE).encode()
    kept = {key: client.dump(key) for key in client.keys(f"{keys.PREFIX}{ROLE}:*") if key != lock}

    def restore() -> None:
        for key in client.keys(f"{keys.PREFIX}{ROLE}:*"):
            if key != lock:
                client.delete(key)
        for key, value in kept.items():
            client.restore(key, 0, value)

    return restore
