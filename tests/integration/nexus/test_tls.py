"""TLS to Redis: all parts use it, and both sides must have a certificate of the right CA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from galaxy.errors import GalaxyError, Unreachable, UsageError
from galaxy.model.api.answers import Answer
from galaxy.model.base import decode
from galaxy.model.step import Send
from galaxy.nexus import Nexus
from galaxy.nexus.connection import full_url
from galaxy.nexus.publisher import Publisher
from galaxy.tasks.app import make_app
from tests.support.tally import Add
from tests.support.tally_node import ADD, running_node
from tests.support.tls import NEEDED, Tls, running_tls_server

pytestmark = pytest.mark.skipif(not NEEDED, reason="needs openssl and a server with TLS")


@pytest.fixture(scope="module")
def tls() -> Iterator[Tls]:
    with running_tls_server() as tls:
        yield tls


def test_leader_and_its_clients_work_over_tls(tls: Tls) -> None:
    nexus, publisher = Nexus.connect(tls.url(), name="t"), Publisher(tls.url(), name="t")
    try:
        with running_node(tls.url(), "h1") as node:
            node.await_log("event=worker.ready")
            publisher.publish([Send(queue="tally", task=ADD, body=Add(name="x", by=2, reply="r"), id="r")])
            data = nexus.await_reply("r", 15.0)
            assert data is not None and decode(data, Answer).result == 2
    finally:
        publisher.close()
        nexus.close()


def test_files_named_in_the_environment_are_used(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_REDIS_CA", str(tls.ours.certificate))
    monkeypatch.setenv("GALAXY_REDIS_CERT", str(tls.certificate))
    monkeypatch.setenv("GALAXY_REDIS_KEY", str(tls.key))
    Nexus.connect(tls.bare, name="t").close()
    app = make_app(tls.bare, node="t@h", queues=["q"])
    with app.connection_for_read() as connection:
        connection.connect()
        assert connection.ssl["ssl_ca_certs"] == str(tls.ours.certificate)


@pytest.mark.parametrize("what", ["another CA", "the system's CAs", "no client certificate", "plain text"])
def test_connection_without_certificates_of_the_right_ca_fails(tls: Tls, what: str) -> None:
    url = {
        "another CA": tls.url(ca=tls.other.certificate),
        "the system's CAs": tls.url(ca=None),
        "no client certificate": tls.url(cert=None, key=None),
        "plain text": tls.bare.replace("rediss", "redis"),
    }[what]
    with pytest.raises(Unreachable):
        Nexus.connect(url, name="t", timeout_s=3.0)
    publisher = Publisher(url, name="t")
    with pytest.raises(GalaxyError):
        publisher.publish([Send(queue="q", task=ADD, body=Add(name="x"), id="1")])
    publisher.close()


def test_certificate_for_another_name_is_refused(tls: Tls) -> None:
    with pytest.raises(Unreachable):
        Nexus.connect(tls.url().replace("127.0.0.1", "localhost"), name="t", timeout_s=3.0)


@pytest.mark.parametrize(
    "query", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ca=/no/such/file", "timeout=1"]
)
def test_parameters_that_would_weaken_tls_are_refused(query: str) -> None:
    with pytest.raises(UsageError):
        full_url(f"rediss://h:1/0?{query}")
    with pytest.raises(UsageError):
        full_url("redis://h:1/0?ssl_cert_reqs=required")


def test_tls_url_without_parameters_requires_a_certificate() -> None:
    assert full_url("rediss://u:p@h:1/0", {}) == "rediss://u:p@h:1/0?ssl_cert_reqs=required"
