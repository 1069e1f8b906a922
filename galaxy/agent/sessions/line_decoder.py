"""Bytes of a log to text: complete characters, and complete lines where possible."""

from __future__ import annotations

import codecs
from typing import Final

LINE_CHARS_MAX: Final = 64 * 1024
"""Limit on the length of an incomplete line that is held back."""


class LineDecoder:
    """Decodes a stream of UTF-8; ``errors`` says what becomes of malformed bytes, as in ``bytes.decode``."""

    def __init__(self, errors: str = "replace") -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._rest = ""

    def add(self, data: bytes) -> str:
        """Return the lines that are complete now. A line over the limit is returned in pieces."""
        text = self._rest + self._decoder.decode(data)
        complete, newline, rest = text.rpartition("\n")
        if len(rest) > LINE_CHARS_MAX:
            complete, newline, rest = text, "", ""
        self._rest = rest
        return complete + newline

    @property
    def has_rest(self) -> bool:
        """Whether an incomplete line is held back."""
        return bool(self._rest or self._decoder.getstate()[0])

    @property
    def rest_bytes(self) -> int:
        """Number of bytes held back; exact with ``surrogateescape``."""
        return bytes_of(self._rest) + len(self._decoder.getstate()[0])

    def rest(self) -> str:
        """Return the incomplete line: at the end of the output, or after a pause in it."""
        text, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        self._decoder.reset()
        return text


def bytes_of(text: str) -> int:
    """Return from how many bytes a text was decoded with ``surrogateescape``."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
