"""Authentication: who signed a request."""

from __future__ import annotations

from typing import Final, Protocol

from galaxy.errors import Refused
from galaxy.model.api.request import Request
from galaxy.model.api.signing import is_signed
from galaxy.model.stored.user import UserRecord

NONCE_MAX: Final = 64
"""Longest nonce, in characters."""


class Users(Protocol):
    """Users by name."""

    def get(self, key: str, /) -> UserRecord | None: ...


def authenticate(
    users: Users, request: Request, *, required: bool, now_s: float, ttl_s: float
) -> UserRecord | None:
    """Return the user who signed ``request``, or None where no signature is ``required``.

    A cluster requires signatures from its first user on; before that, every request is allowed. A request
    is valid within ``ttl_s`` of its signing time, before or after.

    Raises:
        Refused: it is not signed, or not recently. The message is the same for an unknown user and for a
            wrong token.
    """
    if not required:
        return None
    if not request.proof:
        raise Refused(
            "this cluster asks who you are, and the request is not signed",
            details=["neither GALAXY_TOKEN, nor the context or folder of the cluster, holds a token"],
            hint="GALAXY_TOKEN=USER:SECRET; an operator makes one: galaxy user add",
        )
    user = users.get(request.user)
    if user is None or not 0 < len(request.nonce) <= NONCE_MAX or not is_signed(request, user.stored_key):
        raise Refused(
            f'there is no user "{request.user[:64]}", or the token is wrong',
            hint="an operator makes another: galaxy user token",
        )
    age_s = now_s - request.at_s
    if abs(age_s) > ttl_s:
        raise Refused(
            f"the request was signed {abs(age_s):.0f} s {'ago' if age_s > 0 else 'from now'}",
            details=[f"{ttl_s:.0f} s at most: an old one may be a replay, or clocks differ"],
            hint="try again, or compare the clocks of Redis' and the leader's hosts",
        )
    return user
