"""Requests of clients that AppMaster's loop answers."""

from __future__ import annotations

from typing import Final

from galaxy.appmaster.logic.api import audit, job_changes, packages, queries, sessions, top
from galaxy.appmaster.logic.identity import quotas, secrets, users
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.request import Request
from galaxy.operations import dispatch
from galaxy.operations.declaration import declared_in

OPERATIONS: Final = declared_in(job_changes, queries, sessions, users, audit, secrets, quotas, packages, top)
"""The operations that the loop answers. ``galaxy.appmaster.stored_queries`` answers the others."""


def handle(state: AppMasterState, request: Request) -> None:
    """Carry out or answer ``request``; a repeated key gets the first answer again."""
    dispatch.handle(
        OPERATIONS,
        state,
        request,
        records=state.requests,
        users=state.users,
        required=len(state.users) > 0 or state.config.require_users,
        now_s=state.now_s,
    )
