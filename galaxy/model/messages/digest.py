"""What heartbeats say in eight bytes: digests that a leader keeps up to date one change at a time."""

from __future__ import annotations

from galaxy.model.base import fold


def digest_of_container(container: str, incarnation: int) -> int:
    """Fold one *ready* container; the digest of an agent is the XOR over its ready ones."""
    return fold("container", container, incarnation)


def digest_of_pod(pod: str, incarnation: int, generation: int, state: str, healthy: bool) -> int:
    """Fold one pod as last reported; the digest of an agent is the XOR over its pods."""
    return fold("pod", pod, incarnation, generation, state, healthy)
