"""The operation that lists the audit trail."""

from __future__ import annotations

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.operations.audit_filter import matching
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, query


@query(ListAudit, authority=OPERATORS)
def list_audit(state: AppMasterState, body: ListAudit, _: Caller) -> AuditList:
    """Return audit records, oldest first, and the highest serial so far.

    Raises:
        UsageError: ``after`` and ``before`` are both set.
    """
    return matching(state.requests, body)
