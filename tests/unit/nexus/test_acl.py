"""The rules of logins: commands that no role gets, and lines without passwords."""

import hashlib

import pytest

from galaxy.nexus import acl

EVERY = [(role, "h1" if role == acl.AGENT else "") for role in acl.ROLES]
DANGEROUS = ("+keys", "+scan", "+config", "+flush", "+acl", "+shutdown", "+debug", "+eval ", "+client|kill")


@pytest.mark.parametrize(("role", "host"), EVERY)
def test_no_role_may_list_keys_configure_or_see_every_key(role: str, host: str) -> None:
    text = " ".join(acl.rules(role, host)) + " "
    assert not [word for word in DANGEROUS if word in text]
    assert "+@" not in text
    assert "~* " not in text
    assert "&* " not in text


def test_line_contains_only_the_hash_of_the_password_which_depends_on_secret_and_role() -> None:
    password = acl.password("s3cret", "client")
    line = acl.line("client", "s3cret")
    assert password not in line
    assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in line
    others = {acl.password("s3cret", "resman"), acl.password("other", "resman")}
    assert len({password} | others) == 3


def test_agents_rules_name_no_other_host() -> None:
    assert acl.login("agent", "h1") == "agent-h1"
    assert "h2" not in " ".join(acl.rules("agent", "h1"))
    with pytest.raises(ValueError, match="no rules"):
        acl.rules("agent")


def test_hosts_of_a_file_are_found_again() -> None:
    assert acl.hosts_of(acl.file("s", ("h1", "h-2.example"))) == ("h1", "h-2.example")


def test_setinfo_is_allowed_only_on_servers_that_know_it() -> None:
    assert "setinfo" not in acl.file("s", ("h1",), setinfo=acl.knows_setinfo("7.0.15"))
    assert "+client|setinfo" in acl.file("s", ("h1",), setinfo=acl.knows_setinfo("7.2.4"))
    assert acl.knows_setinfo("9.1.2")
