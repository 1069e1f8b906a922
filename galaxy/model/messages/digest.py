"""Digests in heartbeats: eight bytes for a set, which a leader updates with each change to the set."""

from __future__ import annotations

from galaxy.model.base import fold


def digest_of_container(container: str, incarnation: int) -> int:
    """Return the digest of one *ready* container; an agent's digest is the XOR over its ready ones."""
    return fold("container", container, incarnation)


def digest_of_pod(pod: str, incarnation: int, generation: int, state: str, healthy: bool) -> int:
    """Return the digest of one pod as last reported; an agent's digest is the XOR over its pods."""
    return fold("pod", pod, incarnation, generation, state, healthy)
