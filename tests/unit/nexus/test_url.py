"""URLs of Redis, and of the Sentinels that watch it."""

from __future__ import annotations

import pytest

from galaxy.client.login_urls import login_url
from galaxy.errors import UsageError
from galaxy.nexus.url import address_of, parse

THREE = "sentinel://agent-h1:secret@h1:26379,h2,[::1]:7000/0?master=galaxy"


def test_url_of_sentinels_is_parsed_into_hosts_master_and_login() -> None:
    url = parse(THREE, {})
    assert url.hosts == (("h1", 26379), ("h2", 26379), ("::1", 7000))
    assert (url.master, url.user, url.password, url.database) == ("galaxy", "agent-h1", "secret", 0)
    assert url.tls is None
    assert url.replicas == 1


def test_url_of_sentinels_with_tls_has_tls_options() -> None:
    url = parse(THREE.replace("sentinel:", "sentinels:") + "&ca=/etc/hostname", {})
    assert url.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/etc/hostname"}


def test_login_of_sentinels_is_separate_from_that_of_redis() -> None:
    url = parse(THREE + "&sentinel_user=s&sentinel_password=p%26q", {})
    assert (url.sentinel_user, url.sentinel_password) == ("s", "p&q")
    assert parse(THREE, {"GALAXY_SENTINEL_PASSWORD": "e"}).sentinel_password == "e"


def test_no_replica_must_confirm_unless_the_url_says_how_many() -> None:
    assert parse("redis://h/0", {}).replicas == 0
    assert parse("redis://h:1/0?replicas=2", {}).replicas == 2
    assert parse("redis://u:p%40@h:1/0?replicas=2", {}).server() == "redis://u:p%40@h:1/0"


def test_no_address_shows_a_password() -> None:
    shown = address_of(THREE + "&sentinel_password=hidden")
    assert shown == "master galaxy of the Sentinels at h1:26379,h2:26379,::1:7000"
    assert "secret" not in repr(parse(THREE, {}))


def test_login_of_a_role_replaces_another_and_nothing_else() -> None:
    url = login_url("sentinels://old:pw@h1,h2/0?master=m&sentinel_password=a@b", "s" * 20, "client")
    assert url.startswith("sentinels://client:")
    assert url.endswith("@h1,h2/0?master=m&sentinel_password=a@b")


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("sentinel://h1,h2/0", "no master"),
        ("sentinel://h1/0?master_name=m", "master_name is master here"),
        ("sentinel://h1;h2/0?master=m", "commas"),
        ("sentinel://h1,/0?master=m", "HOST:PORT"),
        ("sentinel://h1:99999/0?master=m", "h1:99999"),
        ("sentinel://h1/0?master=m&mastr=m", "did you mean 'master'"),
        ("sentinel://h1/0?master=m&replicas=many", "replicas=many"),
        ("sentinel://h1/0?master=m&ca=/x", "sentinels://"),
        ("sentinel://h1/x?master=m", "database"),
        ("redis+sentinel://h1/0?master=m", "sentinel://USER"),
        ("rediss+sentinel://h1/0?master=m", "sentinels://USER"),
        ("redis://h1,h2/0", "more than one host"),
        ("redis://h1/0?master=m", "sentinel://"),
        ("redis://h1/0?ssl_cert_reqs=none", "rediss://"),
        ("rediss://h1/0?ssl_cert_reqs=none", "verifies the server"),
        ("rediss://h1/0?timeout=1", "takes no 'timeout'"),
        ("unix:///run/redis", "redis://"),
    ],
)
def test_mistake_in_a_url_is_named_with_what_to_do(url: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url, {})
    assert names in str(caught.value)


def test_message_about_a_slash_in_a_password_quotes_nothing_of_it() -> None:
    with pytest.raises(UsageError) as caught:
        parse("redis://ann:sec/ret@h1/0", {})
    assert "%2F" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("sec/", "ret@", "'ret"))
