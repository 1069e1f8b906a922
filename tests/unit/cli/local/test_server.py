"""The choice of the server of a local cluster, and its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.cli.local.layout import Layout
from galaxy.cli.local.server import LocalServer, choose, configure, servers, version_of
from galaxy.client.contexts import without_password
from galaxy.errors import HostError

OLD = LocalServer(kind="redis", path="/usr/bin/redis-server", version="6.2.14")
NEW = LocalServer(kind="valkey", path="/usr/bin/valkey-server", version="8.1.1")
EMBEDDED = LocalServer(kind="embedded", path="/e/valkey-server", version="9.1.2")


def test_server_that_is_too_old_is_skipped() -> None:
    assert choose((OLD, NEW, EMBEDDED)) == NEW


def test_requested_kind_is_chosen() -> None:
    assert choose((NEW, EMBEDDED), "embedded") == EMBEDDED


def test_kind_that_wrote_the_data_is_chosen_unless_another_is_requested() -> None:
    assert choose((NEW, EMBEDDED), data_kind="embedded") == EMBEDDED
    assert choose((NEW, EMBEDDED), "valkey", data_kind="embedded") == NEW
    assert choose((NEW,), data_kind="embedded") == NEW


def test_no_usable_server_is_an_error_with_what_was_found_and_a_hint() -> None:
    with pytest.raises(HostError) as caught:
        choose((OLD,))
    assert caught.value.details == ("/usr/bin/redis-server is 6.2.14",)
    assert "galaxy-cluster[server]" in caught.value.hint


def test_system_server_comes_before_the_embedded_one(tmp_path: Path) -> None:
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho 'Redis server v=7.2.4 sha=0 malloc=x'\n")
    fake.chmod(0o755)
    assert version_of(str(fake)) == "7.2.4"
    first = servers({"PATH": str(tmp_path)})[0]
    assert (first.kind, first.version, first.path) == ("redis", "7.2.4", str(fake))


def test_configuration_binds_loopback_with_a_password_and_without_eviction(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    path = configure(layout, port=6390, password="secret")
    lines = path.read_text().splitlines()
    assert path.stat().st_mode & 0o777 == 0o600
    assert {"bind 127.0.0.1", "requirepass secret", "appendonly yes", "maxmemory-policy noeviction"} <= set(
        lines
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@127.0.0.1:6390/0", "redis://127.0.0.1:6390/0"),
        ("redis://:se/cret@h:6390/0", "redis://h:6390/0"),
        ("sentinel://h:1,i:2/0?sentinel_password=pw&master=m", "sentinel://h:1,i:2/0?sentinel_password=***&master=m"),
        ("sentinel://u:pw@h:1/0?master=m&sentinel_password=pw", "sentinel://h:1/0?master=m&sentinel_password=***"),
    ],
)  # fmt: skip
def test_displayed_url_has_no_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
