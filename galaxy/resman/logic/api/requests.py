"""Requests of operators, which ResMan answers even while no AppMaster runs.

ResMan knows users by the keys that AppMaster sent last (``IdentityOrder``). It refuses those who are no
operators, and records that in its audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from galaxy.errors import Unreachable
from galaxy.model.api.request import Request
from galaxy.model.messages.identity import UserKey
from galaxy.model.stored.user import UserRecord
from galaxy.operations import dispatch
from galaxy.operations.declaration import declared_in
from galaxy.resman.logic.api import agents, audit, drains, pools, safemode
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.state.tables import IDENTITY

OPERATIONS: Final = declared_in(agents, audit, drains, pools, safemode)

_NO_USERS: Final = Unreachable(
    "ResMan does not know yet who the operators are",
    details=["AppMaster has never led this cluster, or has not sent them yet"],
    hint="galaxy status, and the log of the appmaster process",
)


def handle(context: ResManContext, request: Request) -> None:
    """Carry out or answer ``request``; a repeated key gets the first answer again."""
    state = context.state
    identity = state.identity.get(IDENTITY)
    if identity is None:
        state.requests.reply(request, problem=_NO_USERS)
        return
    dispatch.handle(
        OPERATIONS,
        context,
        request,
        records=state.requests,
        users=KnownUsers({key.user: key for key in identity.users}),
        required=not identity.open,
        now_s=state.now_s,
    )


@dataclass(frozen=True)
class KnownUsers:
    """Users by name, to check signatures and roles against; none has grants, which count in AppMaster."""

    keys: Mapping[str, UserKey]

    def get(self, name: str, /) -> UserRecord | None:
        key = self.keys.get(name)
        if key is None:
            return None
        return UserRecord(user=key.user, role=key.role, stored_key=key.stored_key, created_s=0.0)
