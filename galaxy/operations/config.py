"""Limits on requests, the same for every leader; times are seconds."""

from __future__ import annotations

from galaxy.model.base import Struct


class RequestConfig(Struct, frozen=True, kw_only=True):
    """How long requests are valid, and how many of them a leader keeps."""

    request_late_s_max: float = 300.0
    """A change is dropped this long after its deadline. Until then it is made, because clocks may differ."""
    signature_ttl_s: float = 120.0
    """A request is valid this long before and after its signing time. Nonces are kept twice as long."""
    nonces_max: int = 50_000
    """Nonces of one user that are kept; further requests are refused until old nonces expire."""
    answers_max: int = 10_000
    """Answers that are kept; up to twice as many while signed requests are still valid."""
    answers_s: float = 3600.0
    """How long an answer is kept at most."""
    audit_max: int = 5000
    """Audit records that are kept."""
