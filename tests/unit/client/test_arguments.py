"""Arguments of the SDK that Python accepts and that mean something else than they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from galaxy.client import arguments
from galaxy.errors import UsageError
from galaxy.model.stored.user import Authority


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("id", ("id",)),
        ("ls -l '/a b'", ("ls", "-l", "/a b")),
        (["id"], ("id",)),
        (("cat", Path("/etc/hosts")), ("cat", "/etc/hosts")),
        ("echo $HOME *", ("echo", "$HOME", "*")),
    ],
)
def test_command_is_a_list_or_a_text_that_is_split_as_a_shell_would(
    given: Any, words: tuple[str, ...]
) -> None:
    assert arguments.command(given) == words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "no command to run"),
        ([], "no command to run"),
        ("echo 'a", "No closing quotation"),
        (b"id", "not bytes"),
        (None, "not NoneType"),
        (["sleep", 5], "argument 1 of the command is int"),
        ([b"id"], "argument 0 of the command is bytes"),
    ],
)
def test_command_that_is_none_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arguments.command(given)


def test_text_in_place_of_a_list_of_names_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        arguments.names("list_job", "authorities")
    assert caught.value.hint == "authorities=['list_job']"


def test_unknown_choice_is_refused_with_the_known_ones_and_the_near_miss() -> None:
    with pytest.raises(UsageError) as caught:
        arguments.choice("list_jobs", Authority, "authorities")
    assert "submit_job" in caught.value.details[0]
    assert "list_job" in caught.value.details[1]
    assert arguments.choice("list_job", Authority, "authorities") is Authority.LIST_JOB
