"""What may be shown of texts with URLs: everything but credentials. The one place that decides this.

Hidden are the user and password before the host, the values of the query and of path parameters (tokens,
signatures), and the fragment: ``https://***@repo/x.tgz?token=***``. Whatever Galaxy shows or writes to a
log passes through here; only orders and stored specs keep the URL as it was submitted.

A password may have characters that end a URL or its login, such as ``/``, ``@``, quotes and blanks. So once
a URL has a login, everything up to the last ``@`` of its line is hidden, or up to the next URL. This hides
too much rather than too little. (One case is taken for a port: up to five digits, then one of these
characters.) The costs of all functions are linear, as the texts come from users.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

MASK: Final = "***"
LITERAL_MIN: Final = 3
"""Shorter secrets are not searched for outside their URL: they would match ordinary words."""
PIECE_MIN: Final = 4
"""The same for the pieces of a password that has delimiters of URLs."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SCHEME_LETTERS: Final = f"{_LETTERS}0123456789+.-"
_BEFORE_A_URL: Final = "\"'<>`()[]{},;=|"
"""What stands before a URL in a text, besides blanks. After other letters it is a part of the URL before."""
_END: Final = re.compile(r"[\s\"'<>`]")
_AUTHORITY_END: Final = re.compile(r"[\s/?#]")
_WHOLE_AUTHORITY_END: Final = re.compile(r"[/?#]")
_WHOLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.+)", re.DOTALL)
_HOSTS: Final = re.compile(
    r"(\[[^\[\]]*\]|[^\[\]:,]*)(:\d{0,5})?(,(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{0,5})?)*"
)
"""Hosts, each with or without a port."""
_VALUE: Final = re.compile(r"([^&;=]*=)?([^&;]*)")
_PARAMETER: Final = re.compile(r"(;[^;/=?#]*=)([^;/?#]*)")
_DELIMITERS: Final = (re.compile(r"[/?#@]+"), re.compile(r"[\s\"'<>`/?#@&=;:\\]+"))
"""Where libraries take a login apart that has them, and where texts do."""


def without_credentials(text: str) -> str:
    """Return ``text`` with the credentials of every URL in it masked."""
    shown: list[str] = []
    position = 0
    colon = text.find("://")
    while colon >= 0:
        start = colon + 3
        if not _has_scheme(text, position, colon):
            colon = text.find("://", start)
            continue
        end = _end_of_url(text, start)
        shown += (text[position:start], _masked(text[start:end]))
        position, colon = end, text.find("://", end)
    return "".join((*shown, text[position:]))


def source_without_credentials(source: str) -> str:
    """Return one URL with its credentials masked, whatever characters it has; a path stays as it is."""
    match = _WHOLE.fullmatch(source)
    return match[1] + _masked(match[2]) if match else without_credentials(source)


def redact(text: str, *sources: str) -> str:
    """Return ``text`` without the credentials of URLs, and without those of ``sources`` wherever they are.

    Libraries quote parts of a URL in their errors: its path with the query, or a decoded password. They take
    a password with a ``/`` apart, too.
    """
    secrets = {secret for source in sources for secret in _secrets_in(source)}
    for secret in sorted(secrets, key=lambda each: (-len(each), each)):
        text = text.replace(secret, MASK)
    return without_credentials(text)


def is_address(text: str) -> bool:
    """Return whether ``text`` is hosts with or without ports, so that no part of it can be a password."""
    return _HOSTS.fullmatch(text) is not None


def _has_scheme(text: str, start: int, colon: int) -> bool:
    """Return whether the letters before ``colon``, not before ``start``, are the scheme of a URL."""
    return colon > start and text[colon - 1] in _SCHEME_LETTERS


def _end_of_url(text: str, start: int) -> int:
    """Return the end of the URL whose authority begins at ``start``."""
    authority_end = _match_end(_AUTHORITY_END, text, start)
    hosts = text[start : _match_end(_END, text, start, authority_end)]
    if text.find("@", start, authority_end) < 0 and is_address(hosts):
        return _match_end(_END, text, start)
    newline = text.find("\n", start)
    line_end = newline if newline >= 0 else len(text)
    last = text.rfind("@", start, line_end)
    if last >= 0:
        first = text.rfind("@", start, _next_url(text, start, line_end))
        last = first if first >= 0 else last
    return _match_end(_END, text, max(last, start))


def _next_url(text: str, start: int, end: int) -> int:
    """Return where the URL begins that follows the one at ``start``, or ``end``."""
    position, colon = start, text.find("://", start, end)
    while colon >= 0:
        before = text[position:colon].rstrip(_SCHEME_LETTERS)
        has_scheme = position + len(before) < colon
        if has_scheme and before and (before[-1] in _BEFORE_A_URL or before[-1].isspace()):
            return position + len(before)
        position = colon + 3
        colon = text.find("://", position, end)
    return end


def _match_end(pattern: re.Pattern[str], text: str, start: int, end: int = sys.maxsize) -> int:
    """Return where ``pattern`` matches first, or where the text ends."""
    match = pattern.search(text, start, end)
    return match.start() if match else min(end, len(text))


def _split(rest: str) -> tuple[str, str, str, str, str]:
    """Return login, host, path, query and fragment of what follows ``://``; ``login`` ends with its ``@``."""
    authority = rest[: _match_end(_WHOLE_AUTHORITY_END, rest, 0)]
    login = ""
    if "@" in authority or not is_address(authority):
        # Not hosts with ports. The login ends at the last @, as its password may have any character.
        before, at, rest = rest.rpartition("@")
        login = before + at
    end = _match_end(_WHOLE_AUTHORITY_END, rest, 0)
    before, _, fragment = rest[end:].partition("#")
    path, _, query = before.partition("?")
    return login, rest[:end], path, query, fragment


def _masked(rest: str) -> str:
    login, host, path, query, fragment = _split(rest)
    shown = (f"{MASK}@" if login else "") + host + _PARAMETER.sub(rf"\1{MASK}", path)
    if query:
        shown += "?" + _VALUE.sub(lambda value: (value[1] or "") + (MASK if value[2] else ""), query)
    return shown + (f"#{MASK}" if fragment else "")


def _secrets_in(source: str) -> Iterator[str]:
    """Yield the secrets of a URL as they are in it, decoded, and as libraries write them."""
    match = _WHOLE.fullmatch(source)
    if match is None:
        return
    login, _, path, query, fragment = _split(match[2])
    user, colon, password = login.removesuffix("@").partition(":")
    secret = password if colon else user
    found = [secret, fragment, query]
    found += [value[2] for value in _VALUE.finditer(query)]
    found += [value[2] for value in _PARAMETER.finditer(path)]
    for each in found:
        yield from (text for text in _spellings(each) if len(text) >= LITERAL_MIN)
    for delimiters in _DELIMITERS:
        pieces = delimiters.split(secret)
        for each in pieces if len(pieces) > 1 else ():
            yield from (text for text in _spellings(each) if len(text) >= PIECE_MIN)


def _spellings(secret: str) -> set[str]:
    plain = unquote(secret, errors="replace")
    every = {secret, plain}
    for text in (secret, plain):
        every |= {quote(text, safe="", errors="replace"), quote(text, errors="replace")}
        every |= {repr(text)[1:-1], json.dumps(text)[1:-1], text.replace(" ", "+")}
    return every
