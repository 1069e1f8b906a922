"""The logins of Flower's visitors, from FLOWER_BASIC_AUTH.

Flower splits the variable at commas, and fails with an internal error on credentials that are not
ASCII. So Galaxy reads the variable itself, and compares the bytes that a browser sends.
"""

from __future__ import annotations

import binascii
import hmac
import os
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from galaxy.errors import UsageError

VARIABLE: Final = "FLOWER_BASIC_AUTH"
FORM: Final = f"{VARIABLE}=USER:PASSWORD; several logins on a line each"


def read_logins(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the logins that the environment names, as ``USER:PASSWORD``; none without the variable.

    Everything after the first colon of a line is the password.

    Raises:
        UsageError: a login cannot be used exactly as it is written. The message does not quote it.
    """
    text = environ.get(VARIABLE)
    if text is None:
        return []
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if problem := _problem(line):
            where = f", line {number}" if len(lines) > 1 else ""
            raise UsageError(f"{VARIABLE}{where} {problem}", hint=FORM)
    return lines


def _problem(login: str) -> str:
    user, colon, password = login.partition(":")
    if not login:
        return "is empty, and would keep everybody out; unset it to ask for no password"
    if not colon:
        return "has no colon between user and password"
    if not user or not password:
        return f"has no {'password' if user else 'user'}"
    if any(not letter.isprintable() and not 0xDC80 <= ord(letter) <= 0xDCFF for letter in login):
        return "has a control character"
    if any(":" in part for part in password.split(",")[1:]):
        return "can mean several logins with a comma between them, or one password with a comma and a colon"
    return ""


def is_known(header: str, logins: Sequence[str]) -> bool:
    """Return whether the ``Authorization`` header of a request carries one of ``logins``."""
    kind, _, encoded = header.strip().partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    found = False
    for login in logins:  # All of them, so that the time does not tell which one is near.
        found |= hmac.compare_digest(login.encode("utf-8", "surrogateescape"), given)
    return found


def require(logins: Sequence[str]) -> None:
    """Make Flower's pages, API and metrics ask for one of ``logins``; ``/healthcheck`` stays open."""
    # Imported here because Flower takes most of a second, and the variable is checked before.
    import flower.views
    from flower.views.monitor import Metrics
    from tornado.web import HTTPError

    original = flower.views.BaseHandler.get_current_user

    def check(handler: Any) -> None:
        if not is_known(handler.request.headers.get("Authorization", ""), logins):
            raise HTTPError(401)

    def get_current_user(handler: Any) -> Any:
        check(handler)
        return original(handler) if handler.application.options.auth else True

    flower.views.BaseHandler.get_current_user = get_current_user
    Metrics.prepare = check  # Flower asks for no login there.
