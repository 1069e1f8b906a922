"""The audit trail, as operators read it."""

from __future__ import annotations

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, query


@query(ListAudit, authority=OPERATORS)
def list_audit(state: AppMasterState, body: ListAudit, _: Caller) -> AuditList:
    """Return audit records, oldest first, and the highest serial so far."""
    return AuditList(records=state.requests.audited(body.after, body.limit), last=state.requests.last_serial)
