"""Redis' master is killed, paused or replaced while jobs are submitted and programs count."""

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
from tests.support.sentinel import DOWN_AFTER_MS, SECRET, SENTINEL_PASSWORD, SentinelSetup
from tests.support.waiting import until

from .conftest import SubmittingClient, Witnesses, check_accepted

ACCEPTED_AGAIN_S = 30.0
"""How long after the loss of the master a submit is accepted again, on a machine twice as slow."""
KILLS = 2
"""The second kill hits a master that was itself a replica before."""


@pytest.fixture(scope="module")
def witnesses(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    return Witnesses(cluster, tmp_path_factory.mktemp("witness"))


@pytest.fixture(scope="module", autouse=True)
def measured() -> Iterator[dict[str, list[float]]]:
    """Seconds from the fault until a submit is accepted, printed at the end."""
    seen: dict[str, list[float]] = {}
    yield seen
    print(f"\nfailover of Redis, down-after {DOWN_AFTER_MS} ms, until accepted, s: {json.dumps(seen)}")


def test_no_accepted_job_is_lost_when_the_master_is_killed_twice(
    cluster: Cluster,
    redises: SentinelSetup,
    witnesses: Witnesses,
    tmp_path: Path,
    measured: dict[str, list[float]],
) -> None:
    with SubmittingClient(cluster.sdk, tmp_path, "kill") as load:
        for _ in range(KILLS):
            load.await_accepted(time.monotonic())
            old = redises.master()
            old.kill()
            at_s = time.monotonic()
            measured.setdefault("killed", []).append(round(load.await_accepted(at_s, ACCEPTED_AGAIN_S), 2))
            redises.await_master(old)
            old.start()
            redises.await_complete()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_master_that_was_paused_during_its_replacement_is_refused_when_it_continues(
    cluster: Cluster,
    redises: SentinelSetup,
    witnesses: Witnesses,
    tmp_path: Path,
    measured: dict[str, list[float]],
) -> None:
    with SubmittingClient(cluster.sdk, tmp_path, "sleep") as load:
        load.await_accepted(time.monotonic())
        old = redises.master()
        old.pause()
        at_s = time.monotonic()
        measured.setdefault("paused", []).append(round(load.await_accepted(at_s, ACCEPTED_AGAIN_S), 2))
        redises.await_master(old)
        with pytest.raises(GalaxyError):
            _write_at(redises, old.port)
        old.resume()
        with pytest.raises(GalaxyError):  # For a while it still acts as the master.
            _write_at(redises, old.port)
        load.await_accepted(time.monotonic())
        redises.await_complete()
        load.await_accepted(time.monotonic())
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_no_accepted_job_is_lost_in_a_failover_that_an_operator_requests(
    cluster: Cluster,
    redises: SentinelSetup,
    witnesses: Witnesses,
    tmp_path: Path,
    measured: dict[str, list[float]],
) -> None:
    with SubmittingClient(cluster.sdk, tmp_path, "asked") as load:
        load.await_accepted(time.monotonic())
        old = redises.master()
        redises.failover()
        redises.await_master(old)
        measured.setdefault("asked", []).append(
            round(load.await_accepted(time.monotonic(), ACCEPTED_AGAIN_S), 2)
        )
        redises.await_complete()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_nothing_is_accepted_without_replicas_and_jobs_are_accepted_once_they_are_back(
    cluster: Cluster, redises: SentinelSetup, witnesses: Witnesses, tmp_path: Path
) -> None:
    master = redises.master()
    replicas = [server for server in redises.servers if server is not master]
    for replica in replicas:
        replica.kill()
    until("a command says that the master refuses writes", lambda: _refuses(cluster))
    for replica in replicas:
        replica.start()
    with SubmittingClient(cluster.sdk, tmp_path, "back") as load:
        load.await_accepted(time.monotonic(), ACCEPTED_AGAIN_S)
    redises.await_complete()
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()


def test_flower_shows_workers_and_queues_after_a_failover(cluster: Cluster) -> None:
    flower = cluster.file()["flower"]

    def page(path: str) -> str:
        """Return a page, or "" while Flower reconnects to the new master."""
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


def test_no_login_was_denied_anything(cluster: Cluster, redises: SentinelSetup) -> None:
    for server in redises.servers:
        assert server.client().acl_log() == []


def _write_at(redises: SentinelSetup, port: int) -> None:
    """Campaign at one server, confirmed by a replica, like a leader that does not know of the failover."""
    plain = redises.url(replicas="1").partition("?")[0].replace("sentinel://", "redis://")
    login = plain.partition("@")[0]
    with Nexus(f"{login}@127.0.0.1:{port}/0?replicas=1", name="stray") as stray:
        stray.campaign("stray", "s", ttl_s=1.0, address="s")


def _refuses(cluster: Cluster) -> bool:
    done = cluster.run("job", "recover", "witness", status=None)
    return done.returncode == 1 and "too few replicas follow it" in done.stderr
