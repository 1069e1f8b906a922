"""Redis' disk runs full, and its memory: users are told, programs go on, nothing accepted is lost."""

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

from .conftest import Load, Witnesses, check_accepted, leads

DISK_BYTES = 24 * 1024 * 1024
FULL_S = 6.0
"""Three leases."""
AGAIN_S = 30.0


class SmallDisk:
    """A file system of its own, small enough to be filled at once."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="galaxy-small-disk-"))
        self._ballast = self.path / "ballast"
        options = f"size={DISK_BYTES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "galaxy-test", self.path], check=True)

    def fill(self) -> None:
        """Take all the room there is."""
        with open(self._ballast, "ab", buffering=0) as file:
            chunk = bytes(64 * 1024)
            while chunk:
                try:
                    file.write(chunk)
                except OSError:
                    chunk = chunk[: len(chunk) // 2]

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def remove(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)
        self.path.rmdir()


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    made = SmallDisk()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def server(disk: SmallDisk) -> Iterator[RedisServer]:
    made = RedisServer(str(disk.path), "secret-of-the-test")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def cluster(server: RedisServer, new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    made = new_cluster()
    made.up("--redis", server.url, "--no-web")
    yield made
    made.down()


@pytest.fixture(scope="module")
def witnesses(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    return Witnesses(cluster, tmp_path_factory.mktemp("witness"))


def test_disk_full_under_redis_is_said_and_survived(
    cluster: Cluster, server: RedisServer, disk: SmallDisk, witnesses: Witnesses, tmp_path: Path
) -> None:
    with Load(cluster.sdk, tmp_path, "full") as load:
        load.await_accepted(time.monotonic())
        before = leads(cluster)
        disk.fill()
        told = _told(cluster, "cannot write to its disk")
        assert "No space left on device" in told
        assert "make room" in told
        assert "cannot write to its disk" in cluster.run("status", status=1).stderr
        time.sleep(FULL_S)  # What is tested is that it stays full for longer than any lease.
        witnesses.check()
        alive = {part: cluster.pid(part) for part in ("resman", "appmaster", "agent")}
        disk.free()
        again_s = load.await_accepted(time.monotonic(), AGAIN_S)
    print(f"\ndisk full under Redis: accepted again {again_s:.2f} s after there was room")
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()
    assert {part: cluster.pid(part) for part in alive} == alive, "a part ended"
    assert leads(cluster) - before <= 4, "leaders came and went"
    _check_file(server)


def test_memory_full_in_redis_is_said_and_survived(
    cluster: Cluster, server: RedisServer, witnesses: Witnesses, tmp_path: Path
) -> None:
    client = redis.Redis.from_url(server.url)
    with Load(cluster.sdk, tmp_path, "memory") as load:
        load.await_accepted(time.monotonic())
        before = leads(cluster)
        client.config_set("maxmemory", "1mb")
        told = _told(cluster, "its memory is full")
        assert "raise maxmemory" in told
        time.sleep(FULL_S)
        witnesses.check()
        client.config_set("maxmemory", "0")
        again_s = load.await_accepted(time.monotonic(), AGAIN_S)
    print(f"\nmemory full in Redis: accepted again {again_s:.2f} s after there was room")
    check_accepted(cluster, [name for name, _ in load.accepted])
    witnesses.check()
    assert leads(cluster) - before <= 4, "leaders came and went"


def _told(cluster: Cluster, what: str) -> str:
    """Return what a user is told who changes something, once that is ``what``.

    What is asked for changes no witness, as it may be accepted before all is full: no pod has failed.
    """

    def ask() -> str:
        said = cluster.run("job", "recover", "witness", status=None)
        return said.stderr if said.returncode == 1 and what in said.stderr else ""

    return str(until(f"a user is told: {what}", ask))


def _check_file(server: RedisServer) -> None:
    """The append-only file is whole: Redis' own checker finds nothing to mend."""
    checker = os.path.join(os.path.dirname(server.binary), "redis-check-aof")
    if not os.access(checker, os.X_OK):
        return
    manifest = next(Path(server.directory).glob("appendonlydir/*.manifest"))
    said: list[str] = []

    def whole() -> bool:
        done = subprocess.run([checker, str(manifest)], capture_output=True, text=True, check=False)
        said.append(done.stdout)
        return done.returncode == 0

    # The server goes on writing: its last command may be half there at one look, not at each.
    with suppress(AssertionError):
        until("the file is whole", whole, 10)
        return
    raise AssertionError(said[-1])
