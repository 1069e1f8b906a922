"""What every noun and message of Galaxy is: a frozen, keyword-only, strict struct."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeVar

import msgspec

from galaxy.errors import BadMessage

WIRE_VERSION: Final = 2
"""Version of every message between processes, as we write it."""
WIRE_READABLE: Final = range(2, 3)
"""Versions that we read; a message of another one is dropped, and the log says so.

New fields with a default, and new kinds of messages, are no new version: who does not know them
passes over them. What old readers would misread is one. A release that brings it reads both and
still writes the old one; only the next release writes the new one.
"""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest message that is looked at, in bytes."""

T = TypeVar("T")


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value that crosses processes or is stored.

    Fields that we do not know are passed over: a part that is a version newer than we are may
    send them, or may have stored them. What people write is read strictly, at the door
    (``galaxy.model.jobspec.parsing``, ``galaxy.model.api.strict``).
    """


def check_wire(version: Any) -> None:
    """Refuse a message of a version that we do not read.

    Raises:
        BadMessage: that version is newer, or too old; says who is to be upgraded first.
    """
    if isinstance(version, int) and not isinstance(version, bool) and version in WIRE_READABLE:
        return
    low, high = WIRE_READABLE[0], WIRE_READABLE[-1]
    known = f"{low}" if low == high else f"{low} to {high}"
    raise BadMessage(
        f"wire version {str(version)[:40]!r} is not {known}: sender and receiver are too far apart",
        hint="upgrade the older of the two; see Upgrading in docs/operations.md",
    )


def encode(value: Any) -> bytes:
    """Return ``value`` as JSON, fields in the order of their definition."""
    return _ENCODER.encode(value)


def encode_sorted(value: Any) -> bytes:
    """Return ``value`` as JSON that is the same wherever it is made: keys of mappings are sorted."""
    return _SORTED.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Read JSON as a ``kind``, strictly.

    Raises:
        BadMessage: ``data`` is too long, is not JSON, or does not have the shape of ``kind``.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise BadMessage(f"message of {len(data)} bytes is over the limit of {MESSAGE_BYTES_MAX}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadMessage(f"not a {_name(kind)}: {error}") from error


def matches(text: str, pattern: str) -> bool:
    """Tell whether ``text`` is what ``pattern`` of a field asks for, up to its last character.

    Patterns are those of JSON schemas, where ``$`` is the end; to Python's ``re``, and so to
    msgspec, it is before a newline at the end too.
    """
    return re.search(pattern.replace("$", r"\Z"), text) is not None


def to_plain(value: Any) -> Any:
    """Return ``value`` as dicts, lists, strings and numbers, ready for any JSON encoder."""
    return msgspec.to_builtins(value)


def from_plain(value: Any, kind: type[T]) -> T:
    """Read dicts and lists as a ``kind``, strictly.

    Lenient readers of JSON let through what it does not have (NaN, infinities, halves of
    surrogate pairs), and what cannot be stored would be a leader's end: so it is written and
    read once here.

    Raises:
        BadMessage: ``value`` does not have the shape of ``kind``, or is not JSON.
    """
    try:
        return msgspec.json.decode(encode(msgspec.convert(value, type=kind)), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
        raise BadMessage(f"not a {_name(kind)}: {error}") from error


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind).replace("galaxy.model.", "")


def fold(*facts: object) -> int:
    """Return 60 bits that stand for ``facts``; XOR them over a set to digest the set."""
    text = "\x1f".join(map(str, facts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 4


_ENCODER: Final = msgspec.json.Encoder()
_SORTED: Final = msgspec.json.Encoder(order="deterministic")
