"""Users, their grants on pools, and the audit trail."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

from galaxy.errors import UsageError
from galaxy.model.base import Struct, matches

_USER: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$"
_POOL: Final = r"^(\*|[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})$"
UserName = Annotated[str, Meta(pattern=_USER)]
StoredKey = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
PoolName = Annotated[str, Meta(pattern=_POOL)]
ALL_POOLS: Final = "*"
"""A grant on this pool is one on every pool."""


def check_user_name(text: str) -> None:
    """Make sure that ``text`` is a valid name of a user.

    Raises:
        UsageError: it is not; says how names are written.
    """
    if not matches(text, _USER):
        raise UsageError(
            f'"{text[:80]}" is not the name of a user',
            details=["letters, digits and `_`, then `.`, `@` and `-` as well; 64 characters at most"],
        )


def check_pool_name(text: str) -> None:
    """Make sure that ``text`` is a valid name of a pool, or ``*``.

    Raises:
        UsageError: it is not; says how names are written.
    """
    if not matches(text, _POOL):
        raise UsageError(
            f'"{text[:80]}" is not the name of a pool',
            details=["letters, digits and `_`, then `.` and `-` as well; 64 characters at most; `*` is all"],
        )


class Role(StrEnum):
    """Operators may do everything; only they manage users and read the audit trail."""

    USER = "user"
    OPERATOR = "operator"


class Authority(StrEnum):
    """What can be granted on a pool."""

    CREATE_CONTAINER = "create_container"
    REMOVE_CONTAINER = "remove_container"
    UPDATE_CONTAINER = "update_container"
    LIST_CONTAINER = "list_container"
    SUBMIT_JOB = "submit_job"
    REMOVE_JOB = "remove_job"
    UPDATE_JOB = "update_job"
    LIST_JOB = "list_job"


class UserRecord(Struct, frozen=True, kw_only=True):
    """A user. ``stored_key`` checks the user's signatures and cannot make one."""

    user: str
    role: Role
    stored_key: str
    created_s: float
    by: str = ""
    grants: dict[str, tuple[Authority, ...]] = {}


class AuditRecord(Struct, frozen=True, kw_only=True):
    """Who did what, when, to which target; ``result`` is ``ok`` or the kind of the error."""

    serial: int
    at_s: float
    user: str
    op: str
    target: str = ""
    result: str = "ok"
    message: str = ""
    leader: str = "appmaster"
    """Whose audit trail it is in, ``appmaster`` or ``resman``: each counts serials of its own."""
