"""Names of users and pools: the command line and the messages accept the same ones."""

from __future__ import annotations

import pytest

from galaxy.errors import BadMessage, UsageError
from galaxy.model.api.quotas import SetQuota
from galaxy.model.base import from_plain
from galaxy.model.stored.user import check_pool_name, check_user_name


@pytest.mark.parametrize("name", ["ann", "_a", "0", "ann.b@c-d", "a" * 64])
def test_valid_user_name_passes_both_checks(name: str) -> None:
    check_user_name(name)
    assert from_plain({"user": name}, SetQuota).user == name


@pytest.mark.parametrize("name", ["", "bad name", "-a", "a" * 65, "a/b", "a\n", "é"])
def test_invalid_user_name_is_explained(name: str) -> None:
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
