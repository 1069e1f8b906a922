"""Celery's result backend: it pushes an answer to the list that the client named, and stores nothing."""

from __future__ import annotations

import logging
from typing import Any

from celery.backends.base import DisabledBackend

from galaxy.errors import Unreachable
from galaxy.model.api.answers import Answer, Problem, Reply

log = logging.getLogger(__name__)


class ReplyBackend(DisabledBackend):
    """Delivers the ``Answer`` that a handler returned, or an answer that says that the handler failed.

    A request whose handler returns None is answered later, when the leader has committed.
    ``app.galaxy_reply`` delivers; without it nothing is sent.
    """

    def store_result(
        self, task_id: str, result: Any, state: str, *_: Any, request: Any = None, **__: Any
    ) -> None:
        reply_to = getattr(request, "reply_to", None)
        deliver = getattr(self.app, "galaxy_reply", None)
        if not reply_to or not isinstance(reply_to, str) or deliver is None:
            return
        if state == "FAILURE":
            problem = Problem(kind="failed", message=f"the request failed: {type(result).__name__}")
            result = Answer(key=task_id, problem=problem)
        if not isinstance(result, Answer):
            return
        try:
            deliver([Reply(reply=reply_to, answer=result)])
        except Unreachable as error:
            log.warning("event=reply.failed id=%s cause=%r", task_id, error.message)
