"""Redis' master, a replica, or half of a cluster is cut off from the rest while jobs are submitted."""

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
from tests.e2e.hosts.fleet import is_gapless, witness
from tests.support.netns import Host, Network, missing
from tests.support.sentinel import DOWN_AFTER_MS
from tests.support.waiting import until

from .adders import Adders
from .conftest import SubmittingClient, check_accepted
from .split_cluster import SplitCluster

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ACCEPTED_AGAIN_S = 30.0
"""How long after a cut a submit is accepted again, on a machine twice as slow."""
IN_FLIGHT_S = 2.0
"""How long after a cut a client may still receive a confirmation that was sent just before it."""
FAILED_REQUEST_S_MAX = 2 * 3.0 + 4.0
"""A failed request takes at most 3 s to connect and 3 s to ask, plus 4 s on a slow machine."""


class Measurements:
    """Seconds from a cut until a submit is accepted, and counts, printed at the end."""

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
def measured() -> Iterator[Measurements]:
    measurements = Measurements()
    yield measurements
    print(f"\n{measurements}")


@pytest.fixture(scope="module")
def shared_split() -> Iterator[SplitCluster]:
    with Network() as network:
        cluster = SplitCluster(network)
        try:
            cluster.start()
            cluster.run(witness("witness", 4))
            yield cluster
        finally:
            left = cluster.end()
    assert not left


@pytest.fixture
def split(shared_split: SplitCluster) -> Iterator[SplitCluster]:
    yield shared_split
    shared_split.network.heal()


class Clients:
    """A client that submits and one that adds numbers on each side, and checks of the witnesses."""

    def __init__(self, split: SplitCluster, folder: Path, prefix: str) -> None:
        self._sides = split
        self._containers = split.containers("witness")
        self.west = SubmittingClient(partial(split.sdk, client_host=split.west), folder, f"{prefix}w")
        self.east = SubmittingClient(partial(split.sdk, client_host=split.east), folder, f"{prefix}e")
        self.adders = Adders(split.url("admin"), (split.west, split.east), f"adders-{prefix}")

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

    def at(self, host: Host) -> SubmittingClient:
        return self.west if host is self._sides.west else self.east

    def await_all(self, since_s: float) -> float:
        """Return how long after ``since_s`` both sides had another job accepted."""
        return max(load.await_accepted(since_s, ACCEPTED_AGAIN_S) for load in (self.west, self.east))

    def check(self, measured: Measurements) -> None:
        """Assert that nothing accepted is lost or ran twice, and that no witness restarted."""
        names = [name for load in (self.west, self.east) for name, _ in load.accepted]
        check_accepted(self._sides, names)
        found = self.adders.stored()
        lost = self.adders.acknowledged - set(found)
        refused_s = self.west.refused_s + self.east.refused_s
        measured.jobs += len(names)
        measured.refused += len(refused_s)
        measured.adds += len(self.adders.acknowledged)
        measured.unknown += len(self.adders.unknown)
        measured.lost += len(lost)
        assert not lost
        assert len(set(found)) == len(found)
        assert max(refused_s, default=0.0) < FAILED_REQUEST_S_MAX
        before = self._sides.counts("witness")
        until("witnesses still count", lambda: all(
            len(lines) > len(before[key]) for key, lines in self._sides.counts("witness").items()
        ))  # fmt: skip
        assert self._sides.containers("witness") == self._containers
        assert all(map(is_gapless, self._sides.counts("witness").values()))


def test_replica_that_is_cut_off_delays_changes_until_sentinels_consider_it_dead(
    split: SplitCluster, measured: Measurements, tmp_path: Path
) -> None:
    with Clients(split, tmp_path, "replica") as clients:
        master = split.redises.master()
        replica = next(server for server in split.redises.servers if server is not master)
        assert replica.host is not None
        cut_s = time.monotonic()
        split.network.partition(
            [replica.host], [host for host in split.network.hosts if host is not replica.host]
        )
        measured.again_s["replica alone"] = round(clients.await_all(cut_s + 0.9 * DOWN_AFTER_MS / 1000), 2)
        split.network.heal()
        clients.await_all(time.monotonic())
        until("it follows", lambda: split.follows(replica), 40)
        assert split.redises.master() is master
    clients.check(measured)


def test_replica_cut_off_from_its_master_only_blocks_every_change_until_it_is_stopped(
    split: SplitCluster, measured: Measurements, tmp_path: Path
) -> None:
    with Clients(split, tmp_path, "missed") as clients:
        master = split.redises.master()
        replica = next(server for server in split.redises.servers if server is not master)
        assert master.host is not None
        assert replica.host is not None
        split.network.partition([master.host], [replica.host])
        until("nothing is accepted", lambda: clients.west.refused_s and clients.east.refused_s)
        replica.kill()
        stopped_s = time.monotonic()
        measured.again_s["after a stray replica was stopped"] = round(clients.await_all(stopped_s), 2)
        split.network.heal()
        replica.start()
        until("it follows", lambda: split.follows(replica), 40)
    clients.check(measured)


def test_master_cut_off_together_with_the_leaders_accepts_nothing_and_the_other_side_continues(
    split: SplitCluster, measured: Measurements, tmp_path: Path
) -> None:
    here, there = split.colocate_leaders()
    old = split.redises.master()
    small = [old.host, here]
    grant = _grant(split, here)
    with Clients(split, tmp_path, "split") as clients:
        split.network.partition(small, [host for host in split.network.hosts if host not in small])
        cut_s = time.monotonic()
        measured.again_s["large side"] = round(clients.at(there).await_accepted(cut_s, ACCEPTED_AGAIN_S), 2)
        assert split.redises.master() is not old
        until(
            "a client on the small side learns why",
            lambda: any("too few replicas follow it" in error for error in clients.at(here).errors),
        )
        until("the others lead", lambda: set(split.leaders(there).values()) == {there.name}, ACCEPTED_AGAIN_S)
        heal_s = time.monotonic()
        late = [at_s - cut_s for _, at_s in clients.at(here).accepted if cut_s + IN_FLIGHT_S < at_s < heal_s]
        assert not late, f"accepted on the small side, after s: {late}"
        split.network.heal()
        measured.again_s["small side, after the cut"] = round(clients.await_all(heal_s), 2)
        with pytest.raises(NotLeader):
            _commit(split, here, grant)
        until("the old master is a replica", lambda: split.follows(old), 40)
    clients.check(measured)


def test_master_cut_off_only_from_its_replicas_and_sentinels_is_replaced(
    split: SplitCluster, measured: Measurements, tmp_path: Path
) -> None:
    """The master's frames to one replica are lost, and the other replica's frames to the master."""
    old = split.redises.master()
    first, second = (host for host in split.nodes if host is not old.host)
    assert old.host is not None
    with Clients(split, tmp_path, "odd") as clients:
        cut_s = time.monotonic()
        old.host.block(first)
        second.block(old.host)
        split.redises.await_master(old)
        moved_s = time.monotonic()
        again_s = moved_s - cut_s + clients.await_all(moved_s)
        measured.again_s["unreachable for its replicas"] = round(again_s, 2)
        split.network.heal()
        clients.await_all(time.monotonic())
        until("the old master is a replica", lambda: split.follows(old), 40)
    clients.check(measured)


def _grant(split: SplitCluster, host: Host) -> Grant:
    """Return AppMaster's current grant."""
    with host.inside(), Nexus.connect(split.url("admin"), name="test") as nexus:
        facts = nexus.client.hgetall(keys.leader("appmaster"))
        return Grant(role="appmaster", owner=facts[b"owner"].decode(), epoch=int(facts[b"epoch"]), ttl_s=2.0)


def _commit(split: SplitCluster, host: Host, grant: Grant) -> None:
    """Commit with an old grant, like a leader that was paused until now."""
    with host.inside(), Nexus.connect(split.url("admin"), name="test") as nexus:
        nexus.commit(grant, 999_999, [TableChange(table="jobs", key="stray", value=b"{}")], ())
