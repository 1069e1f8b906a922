"""Reading a leader's audit trail: pages of the records that match a filter."""

from __future__ import annotations

import re
from typing import Final

from galaxy.errors import UsageError
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.stored.user import AuditRecord
from galaxy.operations.records import RequestRecords

_PART_OF: Final = re.compile(r"(-[0-9a-f]{6})?([. ].*)?")
"""What follows a name in a target: the rest of an id, the index of a pod, `on POOL`."""


def matching(records: RequestRecords, body: ListAudit) -> AuditList:
    """Return the records that ``body`` asks for, oldest first, and the highest serial so far.

    Raises:
        UsageError: ``after`` and ``before`` are both set.
    """
    if body.after and body.before:
        raise UsageError("a page of the audit trail is either after or before a serial")
    found = records.audited(
        body.after, body.limit, before=body.before, keep=lambda record: _matches(record, body)
    )
    last = records.last_serial
    newest = found[-1].serial if found else last
    return AuditList(records=found, last=last, next=newest if newest < last else 0)


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
    """Return whether ``target`` is ``asked``, a job of that name, something of either, or names it."""
    if target.startswith(asked) and _PART_OF.fullmatch(target, len(asked)) is not None:
        return True
    return asked in target.split()  # Several hosts, or a pool with its hosts.
