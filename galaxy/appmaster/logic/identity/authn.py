"""Who asks, and whether he may; pure functions of users, requests and the time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.errors import Refused
from galaxy.model.api.request import Request
from galaxy.model.api.signing import is_signed
from galaxy.model.stored.user import ALL_POOLS, Authority, Role, UserRecord

NONCE_MAX = 64


class Users(Protocol):
    """Users by name."""

    def get(self, key: str, /) -> UserRecord | None: ...
    def __len__(self) -> int: ...


def authenticate(users: Users, request: Request, now_s: float, config: AppMasterConfig) -> UserRecord | None:
    """Return who signed ``request``; None in a cluster without users, where everybody may do everything.

    Raises:
        Refused: nobody did, or not now; an unknown user and a wrong token sound the same.
    """
    if not len(users) and not config.require_users:
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
            f'user "{request.user[:64]}" or the token is wrong',
            hint="an operator makes another: galaxy user token",
        )
    age_s = now_s - request.at_s
    if abs(age_s) > config.signature_ttl_s:
        raise Refused(
            f"the request was signed {abs(age_s):.0f} s {'ago' if age_s > 0 else 'from now'}",
            details=[f"{config.signature_ttl_s:.0f} s at most: an old one may be a replay, or clocks differ"],
            hint="the same again, or look at the clocks of Redis' and AppMaster's hosts",
        )
    return user


def is_operator(user: UserRecord | None) -> bool:
    """Whether ``user`` may do everything; nobody in particular may, where there are no users."""
    return user is None or user.role is Role.OPERATOR


def may(user: UserRecord | None, authority: Authority, pools: Iterable[str]) -> bool:
    """Whether ``user`` was granted ``authority`` on each of ``pools``; none means on every pool."""
    if user is None or user.role is Role.OPERATOR or authority in user.grants.get(ALL_POOLS, ()):
        return True
    named = list(pools)
    return bool(named) and all(authority in user.grants.get(pool, ()) for pool in named)


def demand(user: UserRecord | None, authority: Authority, pools: Iterable[str], doing: str) -> None:
    """Make sure that ``user`` may.

    Raises:
        Refused: he may not; says which grant is missing.
    """
    named = list(pools)
    if may(user, authority, named) or user is None:
        return
    lacking = [pool for pool in named if authority not in user.grants.get(pool, ())]
    where = f"pool {', '.join(lacking)}" if lacking else "every pool, for the job names none"
    pool = lacking[0] if lacking else "'*'"
    raise Refused(
        f'user "{user.user}" may not {doing}',
        details=[f"{authority} is not granted on {where}"],
        hint=f"an operator can: galaxy user grant {user.user} {pool} add {authority}"
        + ("" if lacking else "; or name pools in deploy.pools"),
    )


def demand_owner(user: UserRecord | None, owner: str, job: str, doing: str) -> None:
    """Make sure that a job is the user's own, or that he is an operator.

    Raises:
        Refused: it is somebody else's.
    """
    if user is not None and user.role is not Role.OPERATOR and owner != user.user:
        raise Refused(
            f'user "{user.user}" may not {doing} "{job}"',
            details=[f'it belongs to "{owner}"' if owner else "it belongs to nobody"],
            hint=f'ask "{owner}" or an operator' if owner else "ask an operator",
        )


def demand_operator(user: UserRecord | None, doing: str) -> None:
    """Make sure that an operator asks.

    Raises:
        Refused: a user does.
    """
    if not is_operator(user):
        assert user is not None
        raise Refused(f'user "{user.user}" may not {doing}', hint="ask an operator")
