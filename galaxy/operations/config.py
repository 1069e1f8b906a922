"""Limits on requests, the same for every leader; times are seconds."""

from __future__ import annotations

from galaxy.model.base import Struct


class RequestConfig(Struct, frozen=True, kw_only=True):
    """How long requests are valid, and how many of them a leader keeps."""

    request_late_max_s: float = 300.0
    """A change whose deadline passed longer ago is not made: nobody waits for it, and clocks may differ."""
    signature_ttl_s: float = 120.0
    """A request is valid this long after it was signed, and before. Nonces are kept twice as long."""
    nonces_max: int = 50_000
    """Requests of one user that are kept; more within ``signature_ttl_s`` are refused."""
    answers_max: int = 10_000
    answers_s: float = 3600.0
    audit_max: int = 5000
