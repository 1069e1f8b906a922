"""Bytes that are not UTF-8 pass through messages, in arguments of commands."""

from __future__ import annotations

import pytest

from galaxy.errors import UsageError
from galaxy.model.api.sessions import check_exec
from galaxy.model.base import decode, encode
from galaxy.model.raw_text import from_message, shown, to_message

TEXTS = ["", "plain", "é🐎", "\udcff", "a\udcffb\udcc3\udca9", "\udc80" * 3, "ff"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_the_same_after_a_message(text: str) -> None:
    (received,) = decode(encode([to_message(text)]), list[str])
    assert from_message(received) == text
    check_exec([received])


@pytest.mark.parametrize("text", ["a\0b", "\0ff", "\0", "\udcff\0c3", "\0\udcff"])
def test_zero_byte_stays_one_and_is_refused(text: str) -> None:
    assert "\0" in from_message(to_message(text))
    with pytest.raises(UsageError, match="zero byte"):
        check_exec([to_message(text)])


def test_bytes_are_shown_in_hexadecimal() -> None:
    assert shown("caf\udce9 é") == "caf\\xe9 é"
