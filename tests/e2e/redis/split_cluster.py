"""A cluster in two halves, west and east, with Redis and Sentinel on three other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import redis

from galaxy.errors import GalaxyError
from tests.e2e.hosts.fleet import HostCluster
from tests.support.netns import Host, Network
from tests.support.sentinel import Process, SentinelSetup
from tests.support.waiting import until

PARTS = ("resman", "appmaster")
LONG = ("--dead-after", "90s")
"""So that containers do not move while a test runs."""


class SplitCluster(HostCluster):
    """A ResMan, an AppMaster, an agent and a client on each of two hosts, and Redis on three others."""

    def __init__(self, network: Network, lines: Sequence[str] = ()) -> None:
        self.network = network
        self.nodes = [network.add(f"n{number}") for number in (1, 2, 3)]
        self.west, self.east = network.add("h1"), network.add("h2")
        super().__init__({"h1": self.west, "h2": self.east}, self.east)
        self.redises = SentinelSetup(self.folder, hosts=self.nodes, agents=tuple(self.agents), lines=lines)

    def url(self, role: str = "client", host: str = "") -> str:
        return self.redises.url(role, host)

    def start(self) -> None:
        """Start everything. The leaders in the west lead, because those in the east start later."""
        self.redises.start()
        for name in self.agents:
            self._agent(name)
        for host in (self.west, self.east):
            for part in PARTS:
                self._leader(part, host)
            until("both lead", lambda: set(self.leaders()) == set(PARTS), 60)
        until("all agents are alive", lambda: list(self.agent_states().values()) == ["alive", "alive"], 60)

    def leaders(self, client_host: Host | None = None) -> dict[str, str]:
        """Return the host of each leader, as seen from ``client_host``."""
        with suppress(GalaxyError), self.sdk(client_host=client_host) as galaxy:
            return {leader.role: leader.address.partition("@")[2] for leader in galaxy.leaders()}
        return {}

    def colocate_leaders(self) -> tuple[Host, Host]:
        """Bring both leaders to one host, and return that host and the other."""

        def together() -> bool:
            leaders = self.leaders()
            if len(set(leaders.values())) == 2:  # Restart ResMan: then the one beside AppMaster leads.
                name = f"resman-{leaders['resman']}"
                self._processes[name].kill()
                self._processes[name].wait(10)
                self._leader("resman", self.agents[leaders["resman"]])
            return set(leaders) == set(PARTS) and len(set(leaders.values())) == 1

        until("both leaders are on one host", together, 60)
        here = self.agents[self.leaders()["appmaster"]]
        return here, self.east if here is self.west else self.west

    def follows(self, server: Process) -> bool:
        """Return whether a server is a replica whose connection to its master works."""
        with suppress(redis.RedisError):
            facts = server.client().info("replication")
            return facts["role"] == "slave" and facts["master_link_status"] == "up"
        return False

    def _leader(self, part: str, host: Host) -> None:
        self._part(
            host, part, "--name", host.name, *(LONG if part == "resman" else ()), log=f"{part}-{host.name}"
        )

    def end(self) -> list[str]:
        self.redises.stop()
        return super().end()
