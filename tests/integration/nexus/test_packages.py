"""Packages in Redis: sent by a client, stored by AppMaster's commit, read by agents, each with its login."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from galaxy.client import package_upload
from galaxy.client.package_staging import PackageFile, read_package
from galaxy.client.package_upload import upload
from galaxy.driver.interfaces import Grant
from galaxy.errors import Conflict, SpecError
from galaxy.ids import package_id
from galaxy.model.api.packages import PackageUpload
from galaxy.model.api.views import PackageView
from galaxy.model.base import encode
from galaxy.model.stored.package import PACKAGES, PackageRecord
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from tests.integration.nexus.test_logins import Open, opened, refused, server

__all__ = ["opened", "server"]  # Fixtures: a server for each binary, and connections as each role.

CHUNK_BYTES = 1000
DATA = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(200)) * 5
"""32 chunks, no two of which are equal in place."""


class Cluster:
    """What AppMaster does for packages of user ann, with its login and without its rules."""

    def __init__(self, nexus: Nexus) -> None:
        self.nexus = nexus
        grant = nexus.campaign("appmaster", "o", ttl_s=60, address="a")
        assert isinstance(grant, Grant)
        self.grant = grant
        self.serial = 0
        self.row: PackageRecord | None = None

    def begin(self, file: PackageFile) -> PackageUpload:
        if self.row is None:
            self.row = PackageRecord(
                package=package_id("ann", file.sha256), user="ann", name=file.name, sha256=file.sha256,
                size_bytes=file.size_bytes, upload="the-upload", chunk_bytes=CHUNK_BYTES,
            )  # fmt: skip
            self.commit(self.row)
        return PackageUpload(
            package=self.view(), upload=self.row.upload, chunk_bytes=CHUNK_BYTES, stored=self.row.stored
        )

    def finish(self, package: str) -> PackageView:
        assert self.row is not None
        self.row = PackageRecord(
            **{name: getattr(self.row, name) for name in self.row.__struct_fields__} | {"stored": True}
        )
        self.commit(self.row)
        assert self.row.package == package
        return self.view()

    def commit(self, row: PackageRecord) -> None:
        self._commit(TableChange(table=PACKAGES, key=row.package, value=encode(row)))

    def drop(self) -> None:
        assert self.row is not None
        self._commit(TableChange(table=PACKAGES, key=self.row.package, value=None))
        self.row = None

    def view(self) -> PackageView:
        assert self.row is not None
        return PackageView(
            package=self.row.package, source="", name=self.row.name, user="ann", sha256=self.row.sha256,
            size_bytes=self.row.size_bytes, stored=self.row.stored,
        )  # fmt: skip

    def _commit(self, change: TableChange) -> None:
        self.serial += 1
        self.nexus.commit(self.grant, self.serial, [change], [])


@pytest.fixture
def cluster(opened: Open) -> Cluster:
    return Cluster(opened("appmaster"))


@pytest.fixture
def file(tmp_path: Path) -> PackageFile:
    (tmp_path / "app.tar").write_bytes(DATA)
    return read_package(tmp_path / "app.tar")


Send = Callable[[], PackageView]


@pytest.fixture
def send(opened: Open, cluster: Cluster, file: PackageFile) -> Iterator[Send]:
    client = opened("client")

    def send_() -> PackageView:
        return upload(
            file,
            packages=client.packages,
            begin=lambda: cluster.begin(file),
            finish=cluster.finish,
            timeout_s=5,
        )

    yield send_


def content(nexus: Nexus, package: str) -> bytes:
    row = nexus.packages.find(package)
    assert row is not None
    return b"".join(nexus.packages.read(row))


def test_stored_package_is_what_was_sent_and_does_not_expire(opened: Open, send: Send) -> None:
    view = send()
    assert content(opened("agent", "h2"), view.package) == DATA
    admin = opened("admin").client
    assert admin.ttl(keys.package(view.package)) == -1
    assert admin.exists(keys.upload("the-upload")) == 0


def test_dropping_the_package_removes_its_content(opened: Open, cluster: Cluster, send: Send) -> None:
    view = send()
    cluster.drop()
    assert opened("admin").client.exists(keys.package(view.package)) == 0
    assert opened("agent", "h1").packages.find(view.package) is None


def test_interrupted_upload_continues_and_sends_again_only_what_is_missing_or_wrong(
    opened: Open, cluster: Cluster, file: PackageFile, send: Send
) -> None:
    client = opened("client")
    cluster.begin(file)
    for number in range(10):
        client.packages.send("the-upload", number, DATA[number * CHUNK_BYTES :][:CHUNK_BYTES])
    client.packages.send("the-upload", 3, b"of a file that changed")
    written: list[int] = []
    admin = opened("admin").client
    before = admin.info("commandstats")["cmdstat_hset"]["calls"]
    view = send()
    written.append(admin.info("commandstats")["cmdstat_hset"]["calls"] - before)
    assert content(opened("agent", "h1"), view.package) == DATA
    assert written == [32 - 9 + 1]  # One more is the row.


def test_upload_expires_when_its_client_does_not_continue(
    opened: Open, cluster: Cluster, file: PackageFile
) -> None:
    cluster.begin(file)
    opened("client").packages.send("the-upload", 0, b"x")
    assert 0 < opened("admin").client.ttl(keys.upload("the-upload")) <= 3600


def test_late_chunk_of_a_second_client_does_not_replace_the_stored_package(
    opened: Open, cluster: Cluster, send: Send
) -> None:
    view = send()
    opened("client").packages.send("the-upload", 0, b"late")
    assert cluster.row is not None
    cluster.commit(cluster.row)
    assert content(opened("agent", "h1"), view.package) == DATA


def test_file_that_changes_while_it_is_sent_is_refused(
    cluster: Cluster, file: PackageFile, send: Send
) -> None:
    Path(file.path).write_bytes(DATA[::-1])
    with pytest.raises(SpecError, match="changes while it is sent"):
        send()
    assert cluster.row is not None
    assert not cluster.row.stored


def test_upload_that_is_lost_each_time_ends_with_an_error(
    opened: Open, file: PackageFile, cluster: Cluster
) -> None:
    admin, tries = opened("admin").client, []

    def begin() -> PackageUpload:
        tries.append(1)
        return cluster.begin(file)

    def lose(_: PackageFile, sent: int) -> None:
        if sent == len(DATA):
            admin.delete(keys.upload("the-upload"))

    with pytest.raises(Conflict, match="loses what is sent"):
        upload(
            file, packages=opened("client").packages, begin=begin, finish=cluster.finish, timeout_s=5,
            progress=lose,
        )  # fmt: skip
    assert len(tries) == package_upload.TRIES_MAX


def test_clients_neither_read_nor_write_stored_packages_and_agents_do_not_write_them(
    opened: Open, send: Send
) -> None:
    package = keys.package(send().package)
    client, agent = opened("client"), opened("agent", "h1")
    for login, command in (
        (client, ("HGET", package, "0")),
        (client, ("HSET", package, "0", "x")),
        (client, ("EVAL", f"return redis.call('HGET','{package}','0')", "0")),
        (client, ("RENAME", keys.upload("u"), package)),
        (client, ("DEL", keys.upload("u"))),
        (client, ("HGETALL", keys.table("appmaster", PACKAGES))),
        (client, ("HGET", keys.table("appmaster", PACKAGES), "x")),
        (agent, ("HSET", package, "0", "x")),
        (agent, ("HGETALL", keys.table("appmaster", PACKAGES))),
        (agent, ("HGET", keys.table("appmaster", "users"), "x")),
        (agent, ("HGET", keys.upload("u"), "0")),
        (opened("resman"), ("HGET", package, "0")),
        (opened("web"), ("HGET", package, "0")),
    ):
        assert refused(login, *command), command
