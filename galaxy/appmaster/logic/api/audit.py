"""The operation that lists the audit trail."""

from __future__ import annotations

import re
from typing import Final

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import UsageError
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.stored.user import AuditRecord
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, query

_PART_OF: Final = re.compile(r"(-[0-9a-f]{6})?([. ].*)?")
"""What follows a name in a target: the rest of an id, the index of a pod, `on POOL`."""


@query(ListAudit, authority=OPERATORS)
def list_audit(state: AppMasterState, body: ListAudit, _: Caller) -> AuditList:
    """Return audit records, oldest first, and the highest serial so far.

    Raises:
        UsageError: ``after`` and ``before`` are both set.
    """
    if body.after and body.before:
        raise UsageError("a page of the audit trail is either after or before a serial")
    records = state.requests.audited(
        body.after, body.limit, before=body.before, keep=lambda record: _matches(record, body)
    )
    last = state.requests.last_serial
    newest = records[-1].serial if records else last
    return AuditList(records=records, last=last, next=newest if newest < last else 0)


def _matches(record: AuditRecord, body: ListAudit) -> bool:
    """Return whether a record matches every filter that is set."""
    operation, asked = record.op.removeprefix("galaxy."), body.operation.removeprefix("galaxy.")
    return (
        body.user in ("", record.user)
        and (not asked or operation == asked or operation.startswith(f"{asked}."))
        and (not body.target or _is_about(record.target, body.target))
        and record.at_s >= body.since_s
    )


def _is_about(target: str, asked: str) -> bool:
    """Return whether ``target`` is ``asked``, a job of that name, or something of either: a pod, a pool."""
    return target.startswith(asked) and _PART_OF.fullmatch(target, len(asked)) is not None
