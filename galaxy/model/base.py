"""The base of every stored record and message: a frozen, keyword-only struct, and its JSON."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeVar

import msgspec

from galaxy.errors import BadMessage

WIRE_VERSION: Final = 3
"""Version that we write into every message between processes."""
WIRE_READABLE: Final = range(3, 4)
"""Versions that we read; a message of another one is dropped, and the log says so.

New fields with a default and new kinds of messages need no new version: a reader that does not
know them ignores them. A change that an old reader would misread needs a new version. The release
that introduces a version reads both and still writes the old one; the next release writes the new one.
"""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest message that is decoded, in bytes."""

T = TypeVar("T")


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value that is sent between processes or stored.

    Unknown fields are ignored: a part of a newer release may send or store them. Input from people
    is validated strictly when it arrives (``galaxy.model.jobspec.parsing``, ``galaxy.model.api.strict``).
    """


def check_wire(version: Any) -> None:
    """Refuse a message of a version that we do not read.

    Raises:
        BadMessage: the version is too new or too old.
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
    """Return ``value`` as JSON with the keys of mappings sorted, so that equal values give equal bytes."""
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
    """Return whether ``text`` matches the ``pattern`` of a field, including a newline at its end.

    Patterns are those of JSON schemas, where ``$`` is the end. In Python's ``re``, and so in
    msgspec, ``$`` matches before a newline at the end as well.
    """
    return re.search(pattern.replace("$", r"\Z"), text) is not None


def to_plain(value: Any) -> Any:
    """Return ``value`` as dicts, lists, strings and numbers, ready for any JSON encoder."""
    return msgspec.to_builtins(value)


def from_plain(value: Any, kind: type[T]) -> T:
    """Read dicts and lists as a ``kind``, strictly.

    Lenient JSON parsers accept values that JSON does not have (NaN, infinities, halves of surrogate
    pairs), which a leader could not store. So the value is encoded and decoded once here.

    Raises:
        BadMessage: ``value`` does not have the shape of ``kind``, or is not JSON.
    """
    try:
        return msgspec.json.decode(encode(msgspec.convert(value, type=kind)), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
        raise BadMessage(f"not a {_name(kind)}: {error}") from error


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind).replace("galaxy.model.", "")


def stable_hash(*facts: object) -> int:
    """Return a 60-bit hash of ``facts``, the same in every process; the XOR over a set is its digest."""
    return hash_of_text("\x1f".join(map(str, facts)))


def hash_of_text(text: str) -> int:
    """Return the hash of facts that are joined by U+001F already; see ``stable_hash``."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 4


_ENCODER: Final = msgspec.json.Encoder()
_SORTED: Final = msgspec.json.Encoder(order="deterministic")
