"""A cluster in two halves: Redis and a Sentinel on each of three hosts, all else once west and once east."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import redis

from galaxy.errors import GalaxyError
from tests.e2e.hosts.fleet import Crew
from tests.support.netns import Host, Network
from tests.support.sentinel import Guarded, Process
from tests.support.waiting import until

PARTS = ("resman", "appmaster")
LONG = ("--dead-after", "90s")
"""Nothing is to move only because a test took long."""


class Sides(Crew):
    """A ResMan, an AppMaster, an agent and a client on each of two hosts, and Redis on three others."""

    def __init__(self, network: Network, lines: Sequence[str] = ()) -> None:
        self.network = network
        self.nodes = [network.add(f"n{number}") for number in (1, 2, 3)]
        self.west, self.east = network.add("h1"), network.add("h2")
        super().__init__({"h1": self.west, "h2": self.east}, self.east)
        self.redises = Guarded(self.folder, hosts=self.nodes, agents=tuple(self.agents), lines=lines)

    def url(self, role: str = "client", host: str = "") -> str:
        return self.redises.url(role, host)

    def start(self) -> None:
        """Start all; whoever is west leads, for those east come later."""
        self.redises.start()
        for name in self.agents:
            self._agent(name)
        for host in (self.west, self.east):
            for part in PARTS:
                self._leader(part, host)
            until("both lead", lambda: set(self.leaders()) == set(PARTS), 60)
        until("all agents are alive", lambda: list(self.standings().values()) == ["alive", "alive"], 60)

    def leaders(self, desk: Host | None = None) -> dict[str, str]:
        """Return the host of each leader, as seen from ``desk``."""
        with suppress(GalaxyError), self.sdk(desk=desk) as galaxy:
            return {leader.role: leader.address.partition("@")[2] for leader in galaxy.leaders()}
        return {}

    def gather(self) -> tuple[Host, Host]:
        """Return the host of both leaders, and the other; have them on one host first."""

        def together() -> bool:
            led = self.leaders()
            if len(set(led.values())) == 2:  # Whoever leads elsewhere than AppMaster begins anew, behind.
                name = f"resman-{led['resman']}"
                self._processes[name].kill()
                self._processes[name].wait(10)
                self._leader("resman", self.agents[led["resman"]])
            return set(led) == set(PARTS) and len(set(led.values())) == 1

        until("both leaders are on one host", together, 60)
        here = self.agents[self.leaders()["appmaster"]]
        return here, self.east if here is self.west else self.west

    def follows(self, server: Process) -> bool:
        """Tell whether a server is a replica, and its master's link is up."""
        with suppress(redis.RedisError):
            facts = server.client().info("replication")
            return facts["role"] == "slave" and facts["master_link_status"] == "up"
        return False

    def _leader(self, part: str, host: Host) -> None:
        self._part(host, part, "--name", host.name, *LONG, log=f"{part}-{host.name}")

    def end(self) -> list[str]:
        self.redises.stop()
        return super().end()
