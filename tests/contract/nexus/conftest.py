"""Every test of the contract runs with Nexus in memory and with a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.nexus import Nexus
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
        yield World(nexus=memory, other=memory, let_pass=let_pass)
        return
    with running_server() as server:
        nexus = Nexus.connect(server.url, name="contract")
        other = Nexus.connect(server.url, name="contract-other")
        yield World(nexus=nexus, other=other, let_pass=lambda seconds: bool(threading.Event().wait(seconds)))
        nexus.close()
        other.close()
