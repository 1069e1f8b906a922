"""Operations on the audit trail."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Body
from galaxy.model.base import Struct
from galaxy.model.stored.user import AuditRecord


class AuditList(Struct, frozen=True, kw_only=True):
    """Audit records, oldest first; ``last`` is the highest serial so far.

    ``next`` is the ``after`` of the page with newer records, 0 when there are none.
    """

    records: tuple[AuditRecord, ...]
    last: int = 0
    next: int = 0


class ListAudit(Body[AuditList], frozen=True, kw_only=True):
    """List the newest ``limit`` records; with ``after``, the oldest ones with a higher serial."""

    op: ClassVar[str] = "galaxy.audit.list"
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
