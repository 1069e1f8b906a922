"""Redis' master, a replica, and half of a cluster are cut off from the rest, while jobs are submitted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.errors import NotLeader
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from tests.e2e.hosts.fleet import unbroken, witness
from tests.support.netns import Host, Network, missing
from tests.support.sentinel import DOWN_AFTER_MS
from tests.support.waiting import until

from .adders import Adders
from .conftest import Load, check_accepted
from .sides import Sides

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

AGAIN_S = 30.0
"""Within this a submit is accepted again after a cut, on a machine that is twice as slow."""
UNDER_WAY_S = 2.0
"""What was confirmed just before a cut is known to its client so long after, on a slow machine."""
TOLD_S = 2 * 3.0 + 4.0
"""A client connects and asks, each within its timeout of 3 s, and the machine may be slow."""


class Figures:
    """What is shown at the end: seconds from a cut until a submit is accepted, and counts."""

    def __init__(self) -> None:
        self.again_s: dict[str, float] = {}
        self.refused = 0
        self.jobs = 0
        self.adds = self.unknown = self.lost = 0

    def __str__(self) -> str:
        return (
            f"Redis cut off, down-after {DOWN_AFTER_MS} ms, until accepted, s: {self.again_s}; "
            f"jobs accepted {self.jobs}, each ran once; refused or unanswered tries {self.refused}; "
            f"adds acknowledged {self.adds}, unknown {self.unknown}, acknowledged and lost {self.lost}"
        )


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    made = Figures()
    yield made
    print(f"\n{made}")


@pytest.fixture(scope="module")
def own_sides() -> Iterator[Sides]:
    with Network() as network:
        made = Sides(network)
        try:
            made.start()
            made.run(witness("witness", 4))
            yield made
        finally:
            left = made.end()
    assert not left


@pytest.fixture
def sides(own_sides: Sides) -> Iterator[Sides]:
    yield own_sides
    print(own_sides.words())  # Shown with a failure.
    own_sides.network.heal()


class Clients:
    """One that submits on each side, two that add numbers, and what witnesses have counted."""

    def __init__(self, sides: Sides, folder: Path, prefix: str) -> None:
        self._sides = sides
        self._lives = sides.lives("witness")
        self.west = Load(partial(sides.sdk, desk=sides.west), folder, f"{prefix}w")
        self.east = Load(partial(sides.sdk, desk=sides.east), folder, f"{prefix}e")
        self.adders = Adders(sides.url("admin"), (sides.west, sides.east), f"adders-{prefix}")

    def __enter__(self) -> Clients:
        self.adders.__enter__()
        self.west.__enter__()
        self.east.__enter__()
        self.await_all(time.monotonic())
        return self

    def __exit__(self, *_: object) -> None:
        self.west.__exit__()
        self.east.__exit__()
        self.adders.__exit__()

    def at(self, host: Host) -> Load:
        return self.west if host is self._sides.west else self.east

    def await_all(self, since_s: float) -> float:
        """Return how long after ``since_s`` both sides had a job accepted."""
        return max(load.await_accepted(since_s, AGAIN_S) for load in (self.west, self.east))

    def check(self, figures: Figures) -> None:
        """Nothing that was accepted is lost or ran twice; witnesses never began again."""
        names = [name for load in (self.west, self.east) for name, _ in load.accepted]
        check_accepted(self._sides, names)
        found = self.adders.found()
        lost = self.adders.acknowledged - set(found)
        refused_s = self.west.refused_s + self.east.refused_s
        figures.jobs += len(names)
        figures.refused += len(refused_s)
        figures.adds += len(self.adders.acknowledged)
        figures.unknown += len(self.adders.unknown)
        figures.lost += len(lost)
        assert not lost
        assert len(set(found)) == len(found)
        assert max(refused_s, default=0.0) < TOLD_S
        before = self._sides.counts("witness")
        until("witnesses count on", lambda: all(
            len(lines) > len(before[life]) for life, lines in self._sides.counts("witness").items()
        ))  # fmt: skip
        assert self._sides.lives("witness") == self._lives
        assert all(map(unbroken, self._sides.counts("witness").values()))


def test_replica_cut_off_alone_is_waited_for_until_sentinels_give_it_up_and_back_it_follows(
    sides: Sides, figures: Figures, tmp_path: Path
) -> None:
    with Clients(sides, tmp_path, "replica") as clients:
        master = sides.redises.master()
        replica = next(server for server in sides.redises.servers if server is not master)
        assert replica.host is not None
        cut_s = time.monotonic()
        sides.network.part([replica.host], [host for host in sides.network.hosts if host is not replica.host])
        figures.again_s["replica alone"] = round(clients.await_all(cut_s + 0.9 * DOWN_AFTER_MS / 1000), 2)
        sides.network.heal()
        clients.await_all(time.monotonic())
        until("it follows", lambda: sides.follows(replica), 40)
        assert sides.redises.master() is master
    clients.check(figures)


def test_replica_that_only_its_master_misses_stops_every_change_until_it_is_stopped(
    sides: Sides, figures: Figures, tmp_path: Path
) -> None:
    with Clients(sides, tmp_path, "missed") as clients:
        master = sides.redises.master()
        replica = next(server for server in sides.redises.servers if server is not master)
        assert master.host is not None
        assert replica.host is not None
        sides.network.part([master.host], [replica.host])
        until("nothing is accepted", lambda: clients.west.refused_s and clients.east.refused_s)
        replica.kill()
        stopped_s = time.monotonic()
        figures.again_s["after a stray replica was stopped"] = round(clients.await_all(stopped_s), 2)
        sides.network.heal()
        replica.start()
        until("it follows", lambda: sides.follows(replica), 40)
    clients.check(figures)


def test_master_cut_off_with_leaders_agent_and_client_accepts_nothing_and_the_rest_goes_on(
    sides: Sides, figures: Figures, tmp_path: Path
) -> None:
    here, there = sides.gather()
    old = sides.redises.master()
    small = [old.host, here]
    grant = _grant(sides, here)
    with Clients(sides, tmp_path, "split") as clients:
        sides.network.part(small, [host for host in sides.network.hosts if host not in small])
        cut_s = time.monotonic()
        figures.again_s["large side"] = round(clients.at(there).await_accepted(cut_s, AGAIN_S), 2)
        assert sides.redises.master() is not old
        until(
            "a client on the small side is told why",
            lambda: any("too few replicas follow it" in told for told in clients.at(here).said),
        )
        until("the others lead", lambda: set(sides.leaders(there).values()) == {there.name}, AGAIN_S)
        heal_s = time.monotonic()
        late = [at_s - cut_s for _, at_s in clients.at(here).accepted if cut_s + UNDER_WAY_S < at_s < heal_s]
        assert not late, f"accepted on the small side, after s: {late}"
        sides.network.heal()
        figures.again_s["small side, after the cut"] = round(clients.await_all(heal_s), 2)
        with pytest.raises(NotLeader):
            _commit(sides, here, grant)
        until("the old master is a replica", lambda: sides.follows(old), 40)
    clients.check(figures)


def test_master_that_all_but_its_replicas_and_sentinels_reach_is_left_for_the_one_that_they_choose(
    sides: Sides, figures: Figures, tmp_path: Path
) -> None:
    """One of the two is not heard by the master, the other does not hear it."""
    old = sides.redises.master()
    deaf, mute = (host for host in sides.nodes if host is not old.host)
    assert old.host is not None
    with Clients(sides, tmp_path, "odd") as clients:
        cut_s = time.monotonic()
        old.host.lose(deaf)
        mute.lose(old.host)
        sides.redises.await_master(old)
        moved_s = time.monotonic()
        again_s = moved_s - cut_s + clients.await_all(moved_s)
        figures.again_s["seen by all but its own"] = round(again_s, 2)
        sides.network.heal()
        clients.await_all(time.monotonic())
        until("the old master is a replica", lambda: sides.follows(old), 40)
    clients.check(figures)


def _grant(sides: Sides, host: Host) -> Grant:
    """Return by what AppMaster leads."""
    with host.inside(), Nexus.connect(sides.url("admin"), name="test") as nexus:
        facts = nexus.client.hgetall(keys.leader("appmaster"))
        return Grant(role="appmaster", owner=facts[b"owner"].decode(), epoch=int(facts[b"epoch"]), ttl_s=2.0)


def _commit(sides: Sides, host: Host, grant: Grant) -> None:
    """Write as whoever was granted the lead, had it slept until now."""
    with host.inside(), Nexus.connect(sides.url("admin"), name="test") as nexus:
        nexus.commit(grant, 999_999, [TableChange(table="jobs", key="stray", value=b"{}")], ())
