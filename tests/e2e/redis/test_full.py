"""Redis runs out of disk or memory: users get errors, programs continue, no accepted job is lost."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.e2e.cluster.conftest import Cluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import until

from .conftest import SubmittingClient, Witnesses, check_accepted, leaderships

DISK_BYTES = 24 * 1024 * 1024
FULL_S = 6.0
"""How long the disk or memory stays full: three leases."""
ACCEPTED_AGAIN_S = 30.0


class SmallDisk:
    """A file system that is small enough to fill quickly."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="galaxy-small-disk-"))
        self._ballast = self.path / "ballast"
        options = f"size={DISK_BYTES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "galaxy-test", self.path], check=True)

    def fill(self) -> None:
        """Use all free space."""
        with open(self._ballast, "ab", buffering=0) as file:
            chunk = bytes(64 * 1024)
            while chunk:
                try:
                    file.write(chunk)
                except OSError:
                    chunk = chunk[: len(chunk) // 2]

    def free(self) -> None:
        """Free the space again."""
        self._ballast.unlink()

    def remove(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)
        self.path.rmdir()


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    small = SmallDisk()
    yield small
    small.remove()


@pytest.fixture(scope="module")
def server(disk: SmallDisk) -> Iterator[RedisServer]:
    server = RedisServer(str(disk.path), "secret-of-the-test")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(server: RedisServer, new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    own = new_cluster()
    own.up("--redis", server.url, "--no-web")
    yield own
    own.down()


@pytest.fixture(scope="module")
def witnesses(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    return Witnesses(cluster, tmp_path_factory.mktemp("witness"))


def test_full_disk_of_redis_is_reported_and_no_accepted_job_is_lost(
    cluster: Cluster, server: RedisServer, disk: SmallDisk, witnesses: Witnesses, tmp_path: Path
) -> None:
    with SubmittingClient(cluster.sdk, tmp_path, "full") as load:
        load.await_accepted(time.monotonic())
        before = leaderships(cluster)
        disk.fill()
        error = _error_with(cluster, "cannot write to its disk")
        assert "No space left on device" in error
        assert "make room" in error
        assert "cannot write to its disk" in cluster.run("status", status=1).stderr
        time.sleep(FULL_S)  # Longer than any lease.
        witnesses.check()
        alive = {part: cluster.pid(part) for part in ("resman", "appmaster", "agent")}
        disk.free()
        again_s = load.await_accepted(time.monotonic(), ACCEPTED_AGAIN_S)
    print(f"\ndisk of Redis full: accepted again {again_s:.2f} s later")
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()
    assert {part: cluster.pid(part) for part in alive} == alive, "a part ended"
    assert leaderships(cluster) - before <= 4, "leaders changed too often"
    _check_file(server)


def test_full_memory_of_redis_is_reported_and_no_accepted_job_is_lost(
    cluster: Cluster, server: RedisServer, witnesses: Witnesses, tmp_path: Path
) -> None:
    client = redis.Redis.from_url(server.url)
    with SubmittingClient(cluster.sdk, tmp_path, "memory") as load:
        load.await_accepted(time.monotonic())
        before = leaderships(cluster)
        client.config_set("maxmemory", "1mb")
        error = _error_with(cluster, "its memory is full")
        assert "raise maxmemory" in error
        time.sleep(FULL_S)
        witnesses.check()
        client.config_set("maxmemory", "0")
        again_s = load.await_accepted(time.monotonic(), ACCEPTED_AGAIN_S)
    print(f"\nmemory of Redis full: accepted again {again_s:.2f} s later")
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()
    assert leaderships(cluster) - before <= 4, "leaders changed too often"


def _error_with(cluster: Cluster, what: str) -> str:
    """Return the error of a command that changes something, once it contains ``what``.

    The command may still be accepted before everything is full. ``job recover`` then changes no
    witness, because no pod has failed.
    """

    def error() -> str:
        done = cluster.run("job", "recover", "witness", status=None)
        return done.stderr if done.returncode == 1 and what in done.stderr else ""

    return str(until(f"a command fails with: {what}", error))


def _check_file(server: RedisServer) -> None:
    """Assert that Redis' own checker finds the append-only file valid."""
    checker = os.path.join(os.path.dirname(server.binary), "redis-check-aof")
    if not os.access(checker, os.X_OK):
        return
    manifest = next(Path(server.directory).glob("appendonlydir/*.manifest"))
    outputs: list[str] = []

    def is_valid() -> bool:
        done = subprocess.run([checker, str(manifest)], capture_output=True, text=True, check=False)
        outputs.append(done.stdout)
        return done.returncode == 0

    # The server still writes: one check may see half of the last command, but not every check.
    with suppress(AssertionError):
        until("the file is valid", is_valid, 10)
        return
    raise AssertionError(outputs[-1])
