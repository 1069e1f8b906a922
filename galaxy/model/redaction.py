"""What may be shown of texts with URLs: everything but credentials. The one place that decides this.

Hidden are the user and password before the host, the values of the query and of path parameters (tokens,
signatures), and the fragment: ``https://***@repo/x.tgz?token=***``. Whatever Galaxy shows or writes to a
log passes through here; only orders and stored specs keep the URL as it was submitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MASK: Final = "***"
LITERAL_MIN: Final = 3
"""Shorter secrets are not searched for outside their URL: they would match ordinary words."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#]*@[^\s\"'<>`]*|[^\s\"'<>`]+)")
"""A URL in a text. Quotes end it, except in its login, which may contain them."""
_WHOLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.+)", re.DOTALL)
_BRACKETS: Final = re.compile(r"\[[^\]]*\]")
_NOT_A_PORT: Final = re.compile(r":(?![0-9,:]*(?:,|$))")
_VALUE: Final = re.compile(r"([^&;=]*=)?([^&;]*)")
_PARAMETER: Final = re.compile(r"(;[^;/=?#]*=)([^;/?#]*)")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")


def without_credentials(text: str) -> str:
    """Return ``text`` with the credentials of every URL in it masked."""
    return _URL.sub(_mask, text) if "://" in text else text


def source_without_credentials(source: str) -> str:
    """Return one URL with its credentials masked, whatever characters it has; a path stays as it is."""
    return without_credentials(_WHOLE.sub(_mask, source))


def redact(text: str, *sources: str) -> str:
    """Return ``text`` without the credentials of URLs, and without those of ``sources`` wherever they are.

    Libraries quote parts of a URL in their errors: its path with the query, or a decoded password.
    """
    secrets = {secret for source in sources for secret in _secrets_in(source)}
    for secret in sorted(secrets, key=lambda each: (-len(each), each)):
        text = text.replace(secret, MASK)
    return without_credentials(text)


def _split(rest: str) -> tuple[str, str, str, str, str]:
    """Return login, host, path, query and fragment of what follows ``://``; ``login`` ends with its ``@``."""
    end = re.search(r"[/?#]|$", rest)
    assert end is not None
    authority, tail = rest[: end.start()], rest[end.start() :]
    if "@" not in authority and "@" in tail and _NOT_A_PORT.search(_BRACKETS.sub("", authority)):
        # Not a host with a port, so it is a login whose password has one of these characters.
        authority, tail = rest[: rest.rindex("@") + 1], rest[rest.rindex("@") + 1 :]
        host = re.match(r"[^/?#]*", tail)
        authority, tail = authority + (host[0] if host else ""), tail[host.end() if host else 0 :]
    login, at, host_text = authority.rpartition("@")
    before, _, fragment = tail.partition("#")
    path, _, query = before.partition("?")
    return login + at, host_text, path, query, fragment


def _mask(match: re.Match[str]) -> str:
    login, host, path, query, fragment = _split(match[2])
    shown = match[1] + (f"{MASK}@" if login else "") + host + _PARAMETER.sub(rf"\1{MASK}", path)
    if query:
        shown += "?" + _VALUE.sub(lambda value: (value[1] or "") + (MASK if value[2] else ""), query)
    return shown + (f"#{MASK}" if fragment else "")


def _secrets_in(source: str) -> Iterator[str]:
    """Yield the secrets of a URL as they are in it, and decoded."""
    match = _WHOLE.fullmatch(source)
    if match is None:
        return
    login, _, path, query, fragment = _split(match[2])
    user, colon, password = login.removesuffix("@").partition(":")
    found = [password if colon else user, fragment, query]
    found += [value[2] for value in _VALUE.finditer(query)]
    found += [value[2] for value in _PARAMETER.finditer(path)]
    for secret in found:
        for text in (secret, _ESCAPE.sub(lambda code: chr(int(code[1], 16)), secret)):
            if len(text) >= LITERAL_MIN:
                yield text
