"""Numbers and dates of a job file that remember how they were written, and what they are as text.

One rule holds wherever text is expected: text is taken as it is, a whole number in its canonical form
(``8080``) as its digits, and everything else must be put in quotes. So no value arrives as another text
than was written: not ``+420777123456``, ``-0``, ``1_000``, ``0x1F``, ``1.10``, ``true`` or a date.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

BITS_MAX: Final = 1024
"""A longer whole number is not shown; Python refuses to write very long ones."""


class WrittenInt(int):
    """A whole number that was written as ``text``, which is not its canonical form."""

    text: str


class WrittenFloat(float):
    """A fraction that was written as ``text``."""

    text: str


class WrittenDate(NamedTuple):
    """A date or a time of TOML, which no field of a job file is."""

    text: str


def whole_number(value: int, text: str) -> int:
    """Return ``value``, which remembers ``text`` unless that is its canonical form."""
    if str(value) == text:
        return value
    number = WrittenInt(value)
    number.text = text
    return number


def fraction(value: float, text: str) -> float:
    """Return ``value``, which remembers that it was written as ``text``."""
    number = WrittenFloat(value)
    number.text = text
    return number


def written(value: Any) -> str:
    """Return a number, a date or true and false as it was written."""
    if isinstance(value, WrittenInt | WrittenFloat | WrittenDate):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > BITS_MAX:
        return "a very long number"
    return str(value)


def as_text(value: Any) -> str | None:
    """Return ``value`` where text is expected; None if it must be put in quotes, or is no scalar."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > BITS_MAX:
        return None
    return None if isinstance(value, WrittenInt) else str(int(value))
