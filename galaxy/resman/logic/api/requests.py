"""Requests of operators, which ResMan answers even while no AppMaster runs.

ResMan knows operators by the keys that AppMaster sent last (``IdentityOrder``) and no other user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from galaxy.errors import Unreachable
from galaxy.model.api.request import Request
from galaxy.model.messages.identity import OperatorKey
from galaxy.model.stored.user import Role, UserRecord
from galaxy.operations import dispatch
from galaxy.operations.declaration import declared_in
from galaxy.resman.logic.api import agents, audit, drains, pools, safemode
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.state.tables import IDENTITY

OPERATIONS: Final = declared_in(agents, audit, drains, pools, safemode)

_NO_OPERATORS: Final = Unreachable(
    "ResMan does not know yet who the operators are",
    details=["AppMaster has never led this cluster, or has not sent them yet"],
    hint="galaxy status, and the log of the appmaster process",
)


def handle(context: ResManContext, request: Request) -> None:
    """Carry out or answer ``request``; a repeated key gets the first answer again."""
    state = context.state
    identity = state.identity.get(IDENTITY)
    if identity is None:
        state.requests.reply(request, problem=_NO_OPERATORS)
        return
    dispatch.handle(
        OPERATIONS,
        context,
        request,
        records=state.requests,
        users=Operators({key.user: key for key in identity.operators}),
        required=not identity.open,
        now_s=state.now_s,
        signer_kind="operator",
    )


@dataclass(frozen=True)
class Operators:
    """Operators by name, as users to check signatures against."""

    keys: Mapping[str, OperatorKey]

    def get(self, name: str, /) -> UserRecord | None:
        key = self.keys.get(name)
        if key is None:
            return None
        return UserRecord(user=key.user, role=Role.OPERATOR, stored_key=key.stored_key, created_s=0.0)
