"""Logins of Flower's visitors are used exactly, or refused at the start."""

from __future__ import annotations

from base64 import b64encode

import pytest

from galaxy.errors import UsageError
from galaxy.web.login import is_known, read_logins


def basic(login: str | bytes) -> str:
    return "Basic " + b64encode(login if isinstance(login, bytes) else login.encode()).decode()


@pytest.mark.parametrize(
    "login",
    [
        "ann:secret",
        "ann:pa,ss",
        "ann:p:w",
        "ann::",
        "ann:,,",
        "ann:a:b,c",
        "ann:žluťoučký 🐎",
        "é:p w",
        "a:,",
    ],
)
def test_login_works_exactly_as_written(login: str) -> None:
    logins = read_logins({"FLOWER_BASIC_AUTH": login})
    assert is_known(basic(login), logins)
    user, _, password = login.partition(":")
    for wrong in (login[:-1], f"{login}x", f"{user}:{password.split(',')[0]}x", user, "", ":", "\xff"):
        assert not is_known(basic(wrong), logins)


def test_bytes_that_are_not_utf8_are_compared_as_bytes() -> None:
    logins = read_logins({"FLOWER_BASIC_AUTH": "ann:caf\udce9"})
    assert is_known(basic(b"ann:caf\xe9"), logins)
    assert not is_known(basic("ann:café"), logins)


def test_several_logins_have_a_line_each() -> None:
    logins = read_logins({"FLOWER_BASIC_AUTH": "ann:a\nbob:b,c\n"})
    assert logins == ["ann:a", "bob:b,c"]
    assert is_known(basic("bob:b,c"), logins) and not is_known(basic("ann:a\nbob:b,c"), logins)


@pytest.mark.parametrize(
    ("login", "problem"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("ann", "has no colon"),
        ("ann:", "has no password"),
        (":secret", "has no user"),
        ("ann:a,bob:b", "several logins"),
        ("ann:p\tw", "control character"),
        ("ann:p\r", "control character"),
        ("ann:a\n\nbob:b", "line 2 is empty"),
        ("ann:a\nbob", "line 2 has no colon"),
    ],
)
def test_login_that_cannot_work_is_refused_without_quoting_it(login: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_logins({"FLOWER_BASIC_AUTH": login})
    assert caught.value.message.startswith("FLOWER_BASIC_AUTH")
    assert problem in caught.value.message
    assert "secret" not in str(caught.value)


def test_without_the_variable_there_are_no_logins() -> None:
    assert read_logins({}) == []


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic YQ", "Bearer YW5uOmE=", "Basic \xe9", "x y z"]
)
def test_malformed_header_is_no_login(header: str) -> None:
    assert not is_known(header, ["ann:a"])
