"""The operation that lists what operators asked ResMan."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.model.api.audit import AuditList
from galaxy.model.api.machines import ListMachineAudit
from galaxy.model.messages.names import RESMAN
from galaxy.operations.audit_filter import matching
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, query
from galaxy.resman.logic.api.context import ResManContext


@query(ListMachineAudit, authority=OPERATORS)
def list_machine_audit(context: ResManContext, body: ListMachineAudit, _: Caller) -> AuditList:
    """Return audit records, oldest first, and the highest serial so far.

    Raises:
        UsageError: ``after`` and ``before`` are both set.
    """
    found = matching(context.state.requests, body)
    return replace(found, records=tuple(replace(record, leader=RESMAN) for record in found.records))
