"""URLs of Redis, and of the Sentinels that watch it."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from galaxy.client.login_urls import login_url
from galaxy.errors import UsageError
from galaxy.nexus.url import HINT, SENTINEL_HINT, address_of, parse

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


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
LETTERS = st.one_of(
    st.sampled_from("/?#@\"'<>` %&=;:,[]{}|\\+*"),
    st.characters(min_codepoint=32, exclude_categories=("Cs",)),
)
SECRETS = st.one_of(
    st.text(LETTERS, min_size=4, max_size=40),
    st.tuples(
        st.sampled_from(("12", "secret", "")),
        st.sampled_from(("?", "/", "#")),
        st.sampled_from(("master=", "replicas=", "ca=", "", "x=")),
        st.text(LETTERS, min_size=4, max_size=20),
    ).map("".join),
)


KNOWN = (
    "master= names what Sentinels watch several masters by name replicas= sentinel_password sentinel_user "
    "is followed by @ and the host not a Redis URL: a / ? # or @ in its user or password is written"
)
SCHEMES = st.sampled_from(("redis", "rediss", "sentinel"))


def check_that_no_piece_is_quoted(url: str, secret: str) -> None:
    try:
        parse(url, {})
    except UsageError as error:
        shown = str(error).replace(HINT, "").replace(SENTINEL_HINT, "").replace(KNOWN, "")
        pieces = {secret[at : at + 4] for at in range(len(secret) - 3)}
        assert not {piece for piece in pieces if piece in shown and piece not in KNOWN}, shown


@UNHURRIED
@given(
    scheme=SCHEMES,
    login=st.sampled_from(("", "u:", ":", "u:p@")),
    secret=SECRETS,
    end=st.sampled_from(("@h:1/0", "@h:1/0?master=m")),
)
def test_no_error_about_a_url_quotes_a_piece_of_its_password(
    scheme: str, login: str, secret: str, end: str
) -> None:
    check_that_no_piece_is_quoted(f"{scheme}://{login}{secret}{end}", secret)


@UNHURRIED
@given(scheme=SCHEMES, login=st.sampled_from(("u:", ":")), secret=SECRETS)
def test_no_error_about_a_url_without_a_host_quotes_its_password(
    scheme: str, login: str, secret: str
) -> None:
    assume(not re.search("[/?#,;@]", secret))
    assume(not secret.isdecimal())
    check_that_no_piece_is_quoted(f"{scheme}://{login}{secret}", secret)


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:sec?ret@h1/0", "redis://ann:sec?ret=1&b@h1/0", "redis://:secret?x@h:6379/0",
        "redis://12?secret@h/0", "redis://:secret:6379/0", "redis://ann:secret", "redis://:p@w?secret@h/0",
        "rediss://:p?ca=secret@h/0", "sentinel://12/secret@h/0?master=m", "redis://12?replicas=secret@h",
    ],
)  # fmt: skip
def test_error_about_a_misplaced_character_in_a_password_says_how_to_write_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url, {})
    assert "secret" not in str(caught.value)
    assert not re.search("sec|ret@", str(caught.value))
    assert ("%3F" if "@" in url else "is followed by @ and the host") in str(caught.value)
