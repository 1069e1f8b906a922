"""Users, their tokens and grants, and the audit trail; for operators."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from galaxy.client import arguments
from galaxy.client.methods.asking import Asking
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, RemoveUser, SetToken, ShowUser
from galaxy.model.api.views import (
    UserView,
)
from galaxy.model.stored.user import Authority, Role, check_pool_name, check_user_name


class UserMethods(Asking):
    """Users, their tokens and grants, and the audit trail; for operators."""

    def add_user(self, user: str, *, role: str = "user", with_jobs: bool = False, key: str = "") -> str:
        """Add a user and return the token, ``USER:SECRET``, which cannot be read again.

        ``with_jobs`` makes the user the owner of jobs that were run under this name before.

        Raises:
            Conflict: the user exists, or jobs under this name hold containers and ``with_jobs`` is not set.
        """
        check_user_name(user)
        secret = secrets.token_urlsafe(32)
        stored = stored_key(secret)
        asked = AddUser(
            user=user, stored_key=stored, role=arguments.choice(role, Role, "role"), with_jobs=with_jobs
        )
        return f"{self._ask(asked, key).user}:{secret}"

    def new_token(self, user: str, *, key: str = "") -> str:
        """Replace a user's token and return the new one; the old one becomes invalid."""
        secret = secrets.token_urlsafe(32)
        asked = SetToken(user=user, stored_key=stored_key(secret))
        return f"{self._ask(asked, key).user}:{secret}"

    def remove_user(self, user: str, *, key: str = "") -> UserView:
        """Remove a user.

        Raises:
            Conflict: a job of the user holds or requests containers.
        """
        return self._ask(RemoveUser(user=user), key)

    def grant(
        self, user: str, pool: str, action: str, authorities: Sequence[str] = (), *, key: str = ""
    ) -> UserView:
        """Change what a user may do on a pool; ``action`` is ``add``, ``remove``, ``set`` or ``clear``.

        The pool ``*`` means every pool.
        """
        check_pool_name(pool)
        given = tuple(
            arguments.choice(name, Authority, "authorities")
            for name in arguments.names(authorities, "authorities")
        )
        asked = GrantUser(user=user, pool=pool, action=action, authorities=given)
        return self._ask(asked, key)

    def user(self, user: str) -> UserView:
        """Return one user and the user's grants."""
        return self._ask(ShowUser(user=user))

    def users(self) -> list[UserView]:
        """List users, by name."""
        return self._all(ListUsers(), lambda page: page.users)

    def audit(
        self,
        *,
        after: int = 0,
        before: int = 0,
        limit: int = 100,
        user: str = "",
        operation: str = "",
        target: str = "",
        since_s: float = 0.0,
    ) -> AuditList:
        """Return the newest records of the audit trail that match, or those next to a serial.

        ``after`` a serial they are the oldest ones above it, ``before`` a serial the newest ones below.
        ``operation`` is like ``job.submit``, or ``job`` for all on jobs; ``target`` is a name or an id;
        ``since_s`` is Unix seconds.
        """
        return self._ask(
            ListAudit(
                after=after,
                before=before,
                limit=limit,
                user=user,
                operation=operation,
                target=target,
                since_s=since_s,
            )
        )
