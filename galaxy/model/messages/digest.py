"""Digests in heartbeats: one number for a set, which is updated with each change of the set.

The agent sends digests of what it has, and a leader compares them with those of what it knows. They are
those of ``stable_hash``, without its cost: a new leader computes a hundred thousand at once.
"""

from __future__ import annotations

from galaxy.model.base import hash_of_text


def digest_of_container(container: str, incarnation: int) -> int:
    """Return the digest of one *ready* container; an agent's digest is the XOR over its ready ones."""
    return hash_of_text(f"container\x1f{container}\x1f{incarnation}")


def digest_of_pod(pod: str, incarnation: int, generation: int, state: str, healthy: bool) -> int:
    """Return the digest of one pod as last reported; an agent's digest is the XOR over its pods."""
    return hash_of_text(f"pod\x1f{pod}\x1f{incarnation}\x1f{generation}\x1f{state}\x1f{healthy}")
