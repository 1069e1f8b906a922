"""Operations on the audit trail."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from galaxy.model.api.body import Body
from galaxy.model.base import Struct
from galaxy.model.stored.user import AuditRecord

RECORDS_MAX: Final = 1000
"""Records of one answer."""
FILTER_LENGTH_MAX: Final = 300


class AuditList(Struct, frozen=True, kw_only=True):
    """Audit records, oldest first; ``last`` is the highest serial so far.

    ``next`` is the ``after`` of the page with newer records, 0 when there are none.
    """

    records: tuple[AuditRecord, ...]
    last: int = 0
    next: int = 0


class ListAudit(Body[AuditList], frozen=True, kw_only=True):
    """List the newest ``limit`` records, or those next to a serial: the page ``before`` or ``after`` it.

    Only records that match every field that is set are listed and counted.
    """

    op: ClassVar[str] = "galaxy.audit.list"
    after: Annotated[int, Meta(ge=0)] = 0
    before: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=RECORDS_MAX)] = 100
    user: Annotated[str, Meta(max_length=FILTER_LENGTH_MAX)] = ""
    operation: Annotated[str, Meta(max_length=FILTER_LENGTH_MAX)] = ""
    """``job.submit``, or ``job`` for all operations on jobs; with or without ``galaxy.`` in front."""
    target: Annotated[str, Meta(max_length=FILTER_LENGTH_MAX)] = ""
    """What was changed, such as the id of a job; ``web`` is also each job of this name (``web-3f9a2c``)."""
    since_s: Annotated[float, Meta(ge=0)] = 0.0
    """Unix seconds."""
