"""Operations on users and their grants."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.api.views import UserView
from galaxy.model.stored.user import Authority, PoolName, Role, StoredKey, UserName


class UserList(Page, frozen=True, kw_only=True):
    """Users by name."""

    users: tuple[UserView, ...]


class AddUser(Body[UserView], frozen=True, kw_only=True):
    """Add a user. The client makes the token and keeps it; ``stored_key`` is derived from it.

    ``with_jobs`` gives the user the jobs that were run under this name before.
    """

    op: ClassVar[str] = "galaxy.user.add"
    user: UserName
    stored_key: StoredKey
    role: Role = Role.USER
    with_jobs: bool = False


class RemoveUser(Body[UserView], frozen=True, kw_only=True):
    """Remove a user who has no containers."""

    op: ClassVar[str] = "galaxy.user.remove"
    user: str


class SetToken(Body[UserView], frozen=True, kw_only=True):
    """Give a user another token; the old one is invalid from then on."""

    op: ClassVar[str] = "galaxy.user.token"
    user: str
    stored_key: StoredKey


class GrantUser(Body[UserView], frozen=True, kw_only=True):
    """Change what a user may do on a pool: ``add`` to it, ``remove`` from it, ``set`` or ``clear`` it."""

    op: ClassVar[str] = "galaxy.user.grant"
    user: str
    pool: PoolName
    action: Annotated[str, Meta(pattern="^(add|remove|set|clear)$")]
    authorities: tuple[Authority, ...] = ()


class ShowUser(Body[UserView], frozen=True, kw_only=True):
    """Show one user."""

    op: ClassVar[str] = "galaxy.user.show"
    user: str


class ListUsers(PagedBody[UserList], frozen=True, kw_only=True):
    """List users."""

    op: ClassVar[str] = "galaxy.user.list"
