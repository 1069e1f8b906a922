"""Credentials of URLs are masked wherever a URL stands, and nothing else is changed."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from galaxy.model.redaction import redact, source_without_credentials, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:secret@repo/x.tgz", "https://***@repo/x.tgz"),
        ("https://token@repo:8443/x.tgz", "https://***@repo:8443/x.tgz"),
        ("https://:secret@repo/x.tgz", "https://***@repo/x.tgz"),
        ("ftp://ann:p%40ss@repo/x.tgz", "ftp://***@repo/x.tgz"),
        ("https://ann:p@ss@repo/x.tgz", "https://***@repo/x.tgz"),
        ("https://ann:se/cr?et#@repo/x.tgz", "https://***@repo/x.tgz"),
        ("https://ann:secret@[::1]:80/x", "https://***@[::1]:80/x"),
        ("HTTPS://ann:secret@repo", "HTTPS://***@repo"),
        ("s3://key:secret@bucket/x?versionId=abc", "s3://***@bucket/x?versionId=***"),
        ("https://repo/x.tgz?token=abc", "https://repo/x.tgz?token=***"),
        ("https://repo/x?a=1&X-Amz-Signature=f00&b", "https://repo/x?a=***&X-Amz-Signature=***&***"),
        ("https://repo/x?abcdef", "https://repo/x?***"),
        ("https://repo/x?token=a=b", "https://repo/x?token=***"),
        ("https://repo/x;key=abc/y.tgz", "https://repo/x;key=***/y.tgz"),
        ("https://repo/x#abc", "https://repo/x#***"),
        ("redis://:pw@h:6379/0", "redis://***@h:6379/0"),
        ("sentinel://u:pw@h:1,i:2/0?master=m", "sentinel://***@h:1,i:2/0?master=***"),
        ('no route to "https://ann:secret@repo/x": timeout', 'no route to "https://***@repo/x": timeout'),
        ("from http://a:b@c/d to http://e/f?g=h now", "from http://***@c/d to http://e/f?g=*** now"),
        ("https://ann:se'cr\"e<t@repo/x", "https://***@repo/x"),
        ("cannot open 'https://ann:se'cret@repo/x'", "cannot open 'https://***@repo/x'"),
        ("https://ann:se'cret@", "https://***@"),
        ("https://ann:my pass@repo/x.tgz", "https://***@repo/x.tgz"),
        ('https://ann:p"a/ss@repo/x.tgz', "https://***@repo/x.tgz"),
        ("cannot open 'https://ann:p'a/s s@repo/x': gone", "cannot open 'https://***@repo/x': gone"),
        ("https://ann:p@ss/word@repo/x", "https://***@repo/x"),
        ("https://ann:p@ss word@repo/x", "https://***@repo/x"),
        ("https://ann:p@w?secret=key@repo/x", "https://***@repo/x"),
        ("https://ann:123456/secret@repo/x", "https://***@repo/x"),
        ("https://ann:ftp://secret@repo/x", "https://***@repo/x"),
        ("a https://ann:my pass@repo, b https://repo:80/y", "a https://***@repo, b https://repo:80/y"),
        ("https://ann:pw@repo/x\nask bob@corp", "https://***@repo/x\nask bob@corp"),
        ("simplecache::https://ann:secret@repo/x", "simplecache::https://***@repo/x"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://repo:8443/pkg@1.2/x.tgz", "http://[::1]:80/pkg@2", "file:///srv/x@1.tar.gz", "h1:80,h2:90",
        "build/hello-1.0.0.tar.gz", "galaxy://0123456789abcdef0123456789abcdef/x.tgz", "ann@example.com",
        "sentinel://h1:26379,h2:26379/0", "a:b@c", "", "exit code 1; restart in 2s", "see https://repo/a.",
        "https://repo/@scope/x, or ask bob@corp", "agent@h1: 'http://h:80' gone, see agent@h2", "://ann:x@y",
    ],
)  # fmt: skip
def test_what_has_no_credentials_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "error",
    [
        "Max retries exceeded with url: /x.tgz?token=t0k3n-value (Caused by timeout)",
        "530 Login incorrect: p@ssword",
        "530 Login incorrect: p%40ssword",
        "no access with t0k3n-value",
        "404, message='Not Found', url='https://ann:p%40ssword@repo/x.tgz?token=t0k3n-value'",
        "moved to https://cdn/y?X-Amz-Signature=other-secret",
    ],
)
def test_error_about_a_url_quotes_none_of_its_secrets(error: str) -> None:
    source = "https://ann:p%40ssword@repo/x.tgz?token=t0k3n-value"
    shown = redact(error, source)
    assert not any(secret in shown for secret in ("p@ssword", "p%40ssword", "t0k3n-value", "other-secret"))
    assert "***" in shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://ann:se'cret@repo/x.tgz", "https://***@repo/x.tgz"),
        ("https://ann:se cr/et@repo/x.tgz", "https://***@repo/x.tgz"),
        ("https://repo/x.tgz?token=ab'cdefgh", "https://repo/x.tgz?token=***"),
        ("zip://x::https://ann:se'cret@repo/x", "zip://***@repo/x"),
        ("build/it's-1.0.0.tar.gz", "build/it's-1.0.0.tar.gz"),
    ],
)
def test_source_is_one_url_whatever_characters_it_has(source: str, shown: str) -> None:
    assert source_without_credentials(source) == shown
    assert source_without_credentials(shown) == shown


def test_secret_with_a_quote_is_not_quoted_by_an_error() -> None:
    assert redact("530 wrong: se'cret", "https://ann:se'cret@repo/x") == "530 wrong: ***"


def shows_a_piece(shown: str, secret: str) -> bool:
    """Return whether ``shown`` has more than three characters of ``secret`` in a row."""
    return any(secret[at : at + 4] in shown for at in range(len(secret) - 3))


def is_ambiguous(secret: str) -> bool:
    """Return whether the password begins like a port, or has another URL in it."""
    return (
        re.search(r"[\s\"'<>`(){}\[\],;=|][A-Za-z0-9+.-]+://", secret) is not None
        or re.match(r"\d{0,5}(,(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{0,5})?)*([\s\"'<>`/?#]|$)", secret)
        is not None
    )


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
LETTERS = st.one_of(st.sampled_from("/?#@\"'<>` %&=;:,[]{}|\\+*"), st.characters(exclude_characters="\n"))
PASSWORDS = st.text(LETTERS, min_size=4, max_size=40).filter(lambda text: not is_ambiguous(text))
AROUND = [
    ("", ""), ("cannot fetch ", ": 404"), ('{"url": "', '"}'), ("source='", "' now"), ("see http://h/x ", ""),
]  # fmt: skip
HOST = "/r.ee/x.tgz"


@UNHURRIED
@given(secret=PASSWORDS, around=st.sampled_from(AROUND))
def test_no_piece_of_a_password_in_a_url_is_ever_shown(secret: str, around: tuple[str, str]) -> None:
    url = f"https://u:{secret}@r.ee/x.tgz"
    before, after = around
    assume(not any(letter in secret for letter in "\x0b\x0c\r\x1c\x1d\x1e\x85\u2028\u2029"))
    assume(not shows_a_piece(f"{before}https://@{HOST}{after}", secret))
    assert source_without_credentials(url) == "https://***@r.ee/x.tgz"
    assert without_credentials(before + url + after) == f"{before}https://***@r.ee/x.tgz{after}"


@UNHURRIED
@given(secret=PASSWORDS.filter(lambda text: "***" not in text))
def test_no_piece_of_a_password_is_shown_by_an_error_that_quotes_it(secret: str) -> None:
    url = f"https://u:{secret}@r.ee/x.tgz"
    for quoted in (
        secret,
        repr(secret),
        json.dumps(secret),
        quote(secret, errors="replace"),
        unquote(secret),
        url,
        repr(url),
    ):
        shown = redact(f"1: {quoted}", url)
        assume(not shows_a_piece(" 1: 'https://***@r.ee/x.tgz' ", secret))
        assert not shows_a_piece(shown, secret), shown


@UNHURRIED
@given(secret=PASSWORDS)
def test_password_that_a_library_takes_apart_at_its_delimiters_is_not_shown(secret: str) -> None:
    url = f"https://u:{secret}@r.ee/x.tgz"
    assume(not shows_a_piece("cannot connect to host ***:443 https", secret))
    for piece in re.split("[/?#@]", secret):
        assert not shows_a_piece(redact(f"cannot connect to host {piece}:443", url), secret)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + " http://x", "http://" + ":" * 200_000 + "/@", "http://" + "[" * 200_000,
        "http://a:b@" * 20_000, "x http://a:b@c " * 20_000, "http://" * 30_000 + "@",
        "http://h/;" + ";=" * 100_000, "x://a:b ://" * 15_000, "x://a:b ://" * 15_000 + "\n@",
        "x://a:b\r" * 20_000 + "\n@", "x://a:b@ ://" * 15_000, "x://a:b@\r" * 15_000,
    ],
)  # fmt: skip
def test_long_text_of_a_user_costs_a_leader_little(text: str) -> None:
    before_s = time.process_time()
    without_credentials(text)
    assert time.process_time() - before_s < 10.0
