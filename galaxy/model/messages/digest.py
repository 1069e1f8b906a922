"""Digests in heartbeats: one number for a set, which is updated with each change of the set.

The agent sends digests of what it has, and a leader compares them with those of what it knows.
"""

from __future__ import annotations

from galaxy.model.base import stable_hash


def digest_of_container(container: str, incarnation: int) -> int:
    """Return the digest of one *ready* container; an agent's digest is the XOR over its ready ones."""
    return stable_hash("container", container, incarnation)


def digest_of_pod(pod: str, incarnation: int, generation: int, state: str, healthy: bool) -> int:
    """Return the digest of one pod as last reported; an agent's digest is the XOR over its pods."""
    return stable_hash("pod", pod, incarnation, generation, state, healthy)
