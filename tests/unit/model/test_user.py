"""Names of users and pools: what is asked in words is what messages between parts accept."""

from __future__ import annotations

import pytest

from galaxy.errors import BadMessage, UsageError
from galaxy.model.api.quotas import SetQuota
from galaxy.model.base import from_plain
from galaxy.model.stored.user import check_pool_name, check_user_name


@pytest.mark.parametrize("name", ["ann", "_a", "0", "ann.b@c-d", "a" * 64])
def test_sound_names_of_users_pass_both_checks(name: str) -> None:
    check_user_name(name)
    assert from_plain({"user": name}, SetQuota).user == name


@pytest.mark.parametrize("name", ["", "bad name", "-a", "a" * 65, "a/b", "a\n", "é"])
def test_name_of_a_user_that_no_message_takes_is_told_in_words(name: str) -> None:
    with pytest.raises(BadMessage):
        from_plain({"user": name.replace("\n", "\n\n")}, SetQuota)
    with pytest.raises(UsageError, match="is not the name of a user"):
        check_user_name(name)


def test_pool_is_a_name_or_a_star() -> None:
    for pool in ("*", "main", "a.b-c"):
        check_pool_name(pool)
    for pool in ("", "**", "a b", "a@b"):
        with pytest.raises(UsageError, match="is not the name of a pool"):
            check_pool_name(pool)
