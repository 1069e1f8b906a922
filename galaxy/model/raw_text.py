"""Text of the operating system that need not be UTF-8, such as arguments of programs, inside JSON.

Python keeps a byte that is not UTF-8 as a surrogate escape (PEP 383), which JSON cannot carry. In
messages, NUL and two hex digits stand for such a byte: a NUL cannot be in an argument.
"""

from __future__ import annotations

import re
from typing import Final

_SURROGATE: Final = re.compile("[\udc80-\udcff]")
_ESCAPE: Final = re.compile("\0([89a-f][0-9a-f])")


def to_message(text: str) -> str:
    """Return ``text`` in the form of messages. A NUL in it stays one, so that receivers can refuse it."""
    marked = text.replace("\0", "\0" + "00") if "\0" in text else text
    return _SURROGATE.sub(lambda match: f"\0{ord(match[0]) - 0xDC00:02x}", marked)


def from_message(text: str) -> str:
    """Return what ``to_message`` was given."""
    return _ESCAPE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), text)


def shown(text: str) -> str:
    """Return ``text`` for people: bytes that are not UTF-8 as in ``\\xff``."""
    return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
