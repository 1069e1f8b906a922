"""Redis' master is killed, paused, and replaced, while jobs are submitted and programs count."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from galaxy.errors import GalaxyError
from galaxy.nexus import Nexus, acl
from tests.e2e.cluster.conftest import Cluster
from tests.support.sentinel import DOWN_AFTER_MS, SECRET, SENTINEL_PASSWORD, Guarded
from tests.support.waiting import until

from .conftest import Load, Witnesses, check_accepted

AGAIN_S = 30.0
"""Within this a submit is accepted again after the master has gone, on a machine that is twice as slow."""
KILLS = 3


@pytest.fixture(scope="module")
def witnesses(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    return Witnesses(cluster, tmp_path_factory.mktemp("witness"))


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[dict[str, list[float]]]:
    """Seconds from the fault until a submit is accepted, shown at the end."""
    seen: dict[str, list[float]] = {}
    yield seen
    print(f"\nfailover of Redis, down-after {DOWN_AFTER_MS} ms, until accepted, s: {json.dumps(seen)}")


def test_master_killed_again_and_again_under_load_loses_nothing_that_was_accepted(
    cluster: Cluster,
    redises: Guarded,
    witnesses: Witnesses,
    tmp_path: Path,
    figures: dict[str, list[float]],
) -> None:
    with Load(cluster.sdk, tmp_path, "kill") as load:
        for _ in range(KILLS):
            load.await_accepted(time.monotonic())
            old = redises.master()
            old.kill()
            at_s = time.monotonic()
            figures.setdefault("killed", []).append(round(load.await_accepted(at_s, AGAIN_S), 2))
            redises.await_master(old)
            old.start()
            redises.await_whole()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_master_that_slept_through_its_replacement_is_not_believed_when_it_wakes(
    cluster: Cluster,
    redises: Guarded,
    witnesses: Witnesses,
    tmp_path: Path,
    figures: dict[str, list[float]],
) -> None:
    with Load(cluster.sdk, tmp_path, "sleep") as load:
        load.await_accepted(time.monotonic())
        old = redises.master()
        old.pause()
        at_s = time.monotonic()
        figures.setdefault("paused", []).append(round(load.await_accepted(at_s, AGAIN_S), 2))
        redises.await_master(old)
        with pytest.raises(GalaxyError):
            _write_at(redises, old.port)
        old.resume()
        with pytest.raises(GalaxyError):  # It still thinks that it is the master, for a while.
            _write_at(redises, old.port)
        load.await_accepted(time.monotonic())
        redises.await_whole()
        load.await_accepted(time.monotonic())
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_a_failover_that_an_operator_asks_for_is_hardly_noticed(
    cluster: Cluster,
    redises: Guarded,
    witnesses: Witnesses,
    tmp_path: Path,
    figures: dict[str, list[float]],
) -> None:
    with Load(cluster.sdk, tmp_path, "asked") as load:
        load.await_accepted(time.monotonic())
        old = redises.master()
        redises.failover()
        redises.await_master(old)
        figures.setdefault("asked", []).append(round(load.await_accepted(time.monotonic(), AGAIN_S), 2))
        redises.await_whole()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_without_replicas_nothing_is_accepted_and_with_them_it_goes_on(
    cluster: Cluster, redises: Guarded, witnesses: Witnesses, tmp_path: Path
) -> None:
    master = redises.master()
    replicas = [server for server in redises.servers if server is not master]
    for replica in replicas:
        replica.kill()
    until("a user is told that the master refuses writes", lambda: _refuses(cluster))
    for replica in replicas:
        replica.start()
    with Load(cluster.sdk, tmp_path, "back") as load:
        load.await_accepted(time.monotonic(), AGAIN_S)
    redises.await_whole()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_flower_has_moved_along_and_asks_the_new_master(cluster: Cluster) -> None:
    flower = cluster.file()["flower"]

    def page(path: str) -> str:
        """Return a page, or nothing while Flower is still on its way to the new master."""
        with suppress(OSError), urllib.request.urlopen(flower + path, timeout=15) as answer:
            return str(answer.read().decode())
        return ""

    def seen() -> bool:
        rows = json.loads(page("workers?json=1") or '{"data": []}')["data"]
        return len([row for row in rows if row["status"]]) == 5

    until("Flower sees three parts and two that stand by", seen, timeout_s=60)
    queues = until(
        "it has asked workers for their queues",
        lambda: text if '<tr id="' in (text := page("broker")) else "",
        timeout_s=60,
    )
    for hidden in (SECRET, SENTINEL_PASSWORD, acl.password(SECRET, acl.ADMIN)):
        assert hidden not in queues


def test_no_part_ever_tried_what_its_login_may_not(cluster: Cluster, redises: Guarded) -> None:
    for server in redises.servers:
        assert server.client().acl_log() == []


def _write_at(redises: Guarded, port: int) -> None:
    """Campaign at one server, with a replica's confirmation, as a leader that was never told."""
    plain = redises.url(replicas="1").partition("?")[0].replace("sentinel://", "redis://")
    login = plain.partition("@")[0]
    with Nexus(f"{login}@127.0.0.1:{port}/0?replicas=1", name="stray") as stray:
        stray.campaign("stray", "s", ttl_s=1.0, address="s")


def _refuses(cluster: Cluster) -> bool:
    said = cluster.run("job", "recover", "witness", status=None)
    return said.returncode == 1 and "too few replicas follow it" in said.stderr
