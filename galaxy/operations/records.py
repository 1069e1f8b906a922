"""A leader's records of answered requests: first answers, the audit trail, nonces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from galaxy.errors import GalaxyError
from galaxy.model.api.answers import Answer, Reply, problem_of
from galaxy.model.api.request import Request
from galaxy.model.stored.answer import AnswerRecord
from galaxy.model.stored.table import Table
from galaxy.model.stored.user import AuditRecord
from galaxy.operations.config import RequestConfig
from galaxy.operations.nonces import Nonces


class RequestRecords:
    """The tables ``answers`` and ``audit``, which the leader commits, and what is derived from them.

    ``replies`` are the answers of the current step.
    """

    def __init__(self, config: RequestConfig) -> None:
        self.config = config
        self.answers: Table[AnswerRecord] = Table("answers", AnswerRecord)
        self.audit: Table[AuditRecord] = Table("audit", AuditRecord)
        self.nonces = Nonces(2 * config.signature_ttl_s, config.nonces_max)
        self.begin()

    def begin(self) -> None:
        """Derive what follows from the tables. Nonces do not, and are kept."""
        self.replies: list[Reply] = []
        self._answered = deque(sorted((row.at_s, key) for key, row in self.answers.items()))
        self._audited = deque(sorted(self.audit))

    # ---- answers

    def reply(self, request: Request, *, result: Any = None, problem: GalaxyError | None = None) -> None:
        """Add the answer to ``request``, which is sent when this step is committed."""
        answer = Answer(key=request.key, result=result, problem=problem_of(problem) if problem else None)
        self.replies.append(Reply(reply=request.reply, answer=answer))

    def put_answer(self, row: AnswerRecord, *, now_s: float, signed: bool) -> None:
        """Keep the first answer to a key, and drop the oldest answers; ``signed``: the request was signed."""
        self.answers.put(row.key, row)
        self._answered.append((row.at_s, row.key))
        self._drop_old_answers(now_s, signed=signed)

    def is_full(self, now_s: float) -> bool:
        """Return whether no further answer to a signed request can be kept for long enough."""
        self._drop_old_answers(now_s, signed=True)
        return len(self._answered) >= 2 * self.config.answers_max

    def drop_answers_to(self, user: str) -> None:
        """Drop every answer to a user who is removed: a later user of that name must not get them."""
        for key in [key for key, row in self.answers.items() if row.user == user]:
            self.answers.drop(key)
        self._answered = deque(pair for pair in self._answered if pair[1] in self.answers)

    def _drop_old_answers(self, now_s: float, *, signed: bool) -> None:
        oldest_s = now_s - self.config.answers_s
        # The answer to a signed request stays while its signature is valid: otherwise a replay would
        # be carried out again.
        valid_s = now_s - 2 * self.config.signature_ttl_s if signed else now_s
        while self._answered and (
            (len(self._answered) > self.config.answers_max and self._answered[0][0] <= valid_s)
            or self._answered[0][0] < oldest_s
        ):
            self.answers.drop(self._answered.popleft()[1])

    # ---- the audit trail

    def record(self, record: AuditRecord) -> None:
        """Append to the audit trail with the next serial; the oldest records are dropped."""
        serial = self.last_serial + 1
        key = f"{serial:015d}"
        self.audit.put(key, msgspec.structs.replace(record, serial=serial))
        self._audited.append(key)
        while len(self._audited) > self.config.audit_max:
            self.audit.drop(self._audited.popleft())

    def audited(
        self,
        after: int,
        limit: int,
        *,
        before: int = 0,
        keep: Callable[[AuditRecord], bool] = lambda _: True,
    ) -> tuple[AuditRecord, ...]:
        """Return the newest ``limit`` records that ``keep`` accepts, oldest first.

        With ``before`` they are the newest of those with a lower serial; with ``after``, the oldest of
        those with a higher one.
        """
        if not self._audited:
            return ()
        first = int(self._audited[0])
        if after:
            rows = (self.audit[key] for key in islice(self._audited, max(after + 1 - first, 0), None))
            return tuple(islice(filter(keep, rows), limit))
        newest = len(self._audited) - max(before - first, 0) if before else 0
        rows = (self.audit[key] for key in islice(reversed(self._audited), newest, None))
        return tuple(islice(filter(keep, rows), limit))[::-1]

    @property
    def last_serial(self) -> int:
        """The highest serial so far, 0 before the first record."""
        return int(self._audited[-1]) if self._audited else 0
