"""Authorisation: what a caller may do, as pure functions of the user's record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from galaxy.errors import Refused
from galaxy.model.stored.user import ALL_POOLS, Authority, Role, UserRecord
from galaxy.operations.declaration import AuthorityRule, Caller


def is_operator(user: UserRecord | None) -> bool:
    """Return whether ``user`` may do everything. None, a caller in a cluster without users, may as well."""
    return user is None or user.role is Role.OPERATOR


def is_allowed(user: UserRecord | None, authority: Authority, pools: Iterable[str]) -> bool:
    """Return whether ``user`` has ``authority`` on each of ``pools``; no pools means every pool."""
    if user is None or user.role is Role.OPERATOR or authority in user.grants.get(ALL_POOLS, ()):
        return True
    named = list(pools)
    return bool(named) and all(authority in user.grants.get(pool, ()) for pool in named)


def require_authority(
    user: UserRecord | None, authority: Authority, pools: Iterable[str], doing: str
) -> None:
    """Make sure that ``user`` has ``authority`` on ``pools``.

    Here and below, ``doing`` completes the message: user "ann" may not ...

    Raises:
        Refused: names the grant that is missing.
    """
    named = list(pools)
    if is_allowed(user, authority, named) or user is None:
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


def require_owner(user: UserRecord | None, owner: str, name: str, doing: str) -> None:
    """Make sure that ``name`` belongs to ``user``, or that ``user`` is an operator.

    Raises:
        Refused: it belongs to another user, or to no user.
    """
    if user is not None and user.role is not Role.OPERATOR and owner != user.user:
        raise Refused(
            f'user "{user.user}" may not {doing} "{name}"',
            details=[f'it belongs to "{owner}"' if owner else "it belongs to nobody"],
            hint=f'ask "{owner}" or an operator' if owner else "ask an operator",
        )


def require_operator(user: UserRecord | None, doing: str) -> None:
    """Make sure that ``user`` is an operator.

    Raises:
        Refused: ``user`` is not.
    """
    if user is not None and not is_operator(user):
        raise Refused(f'user "{user.user}" may not {doing}', hint="ask an operator")


# ---- authority rules that do not depend on a leader's state


def _allow(_: Any, __: Any, ___: Caller) -> None:
    pass


def _require_operator(_: Any, body: Any, caller: Caller) -> None:
    require_operator(caller.user, f"ask {body.op}")


def _require_self(_: Any, body: Any, caller: Caller) -> None:
    if getattr(body, "all", False) or body.user not in ("", caller.name):
        require_operator(caller.user, f'ask {body.op} of "{body.user or "everybody"}"')


ANY_USER: Final[AuthorityRule[Any, Any]] = AuthorityRule(documented="any user", require=_allow)
OPERATORS: Final[AuthorityRule[Any, Any]] = AuthorityRule(
    documented="operators only", require=_require_operator
)
SELF: Final[AuthorityRule[Any, Any]] = AuthorityRule(
    documented="any user, about themselves", require=_require_self
)
"""The body's ``user`` must be the caller or empty, and ``all`` must not be set."""
