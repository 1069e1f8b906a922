"""Credentials of URLs are masked wherever a URL stands, and nothing else is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
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


PRINTABLE = st.characters(codec="ascii", min_codepoint=33, exclude_characters="/?#*")


@given(secret=st.text(PRINTABLE, min_size=4))
def test_no_password_of_a_url_is_ever_shown(secret: str) -> None:
    url = f"https://ann:{secret}@repo.example/x.tgz"
    assert without_credentials(url) == "https://***@repo.example/x.tgz"
    assert secret not in redact(f"failed: {secret}", url).removeprefix("failed: ")
