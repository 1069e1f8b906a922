"""What is worth telling later."""

from __future__ import annotations

from galaxy.model.base import Struct


class TraceEvent(Struct, frozen=True, kw_only=True):
    """``subject`` is a job, pod, container or agent id; ``kind`` a word like ``pod.failed``."""

    kind: str
    subject: str
    text: str = ""
    at_s: float = 0.0
