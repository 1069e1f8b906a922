"""Rows of the containers table: their keys, their indexes, and which of them count or need a command."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.digest import digest_of_container
from galaxy.model.stored.container import Container

UNACKNOWLEDGED: Final = frozenset({ContainerState.ALLOCATING, ContainerState.DESTROYING})
"""States in which a command is sent to the agent until its outcome is reported."""
PLACED: Final = UNACKNOWLEDGED | {ContainerState.READY}


def is_resizing(row: Container) -> bool:
    """Return whether the agent of a placed row has not yet reported the size that it was ordered."""
    return row.sized != row.size and row.state in (ContainerState.ALLOCATING, ContainerState.READY)


def is_unacknowledged(row: Container) -> bool:
    """Return whether a command is sent to the agent of ``row`` until its outcome is reported."""
    return row.state in UNACKNOWLEDGED or is_resizing(row)


def counts(key: str, row: Container | None) -> bool:
    """Return whether a row counts against a quota: a slot that is placed, or was and will be again.

    A slot counts once, however many earlier incarnations of it are still to be destroyed.
    """
    if row is None or key != row.container:
        return False
    return row.state in PLACED or (row.claimed and row.state is ContainerState.PENDING)


def old_incarnation_key(container: str, incarnation: int, agent: str) -> str:
    """Return the key of the row of an earlier incarnation that ``agent`` must still destroy.

    The key includes the agent, because two agents can report the same incarnation.
    """
    return f"{container}#{incarnation}@{agent}"


def reservation_key(container: str) -> str:
    """Return the key under which the scheduler's view has the room that is kept for a leaving slot."""
    return f"{container}>"


def _group(row: Container) -> Hashable:
    return row.group


def _agent(row: Container) -> Hashable | None:
    return row.agent or None


def _unacknowledged(row: Container) -> Hashable | None:
    return row.agent if row.agent and is_unacknowledged(row) else None


def _waiting(row: Container) -> Hashable | None:
    return row.group if row.state is ContainerState.PENDING else None


def _not_gone(row: Container) -> Hashable | None:
    return None if row.state is ContainerState.GONE else row.group


def _leaving(row: Container) -> Hashable | None:
    return True if row.leave is not None else None


def _digest(row: Container) -> tuple[Hashable, int] | None:
    if row.state is not ContainerState.READY:
        return None
    return row.agent, digest_of_container(row.container, row.incarnation)


DIGEST: Final = "digest"
"""Name of the sum of ``SUMS``."""
SUMS: Final[Mapping[str, Callable[[Container], tuple[Hashable, int] | None]]] = {DIGEST: _digest}
"""By agent, the digest of the containers that are ready on it."""

INDEXES: Final[Mapping[str, Callable[[Container], Hashable | None]]] = {
    "group": _group,
    "agent": _agent,
    "unacknowledged": _unacknowledged,
    "waiting": _waiting,
    "not_gone": _not_gone,
    "leaving": _leaving,
}
"""Indexes of the containers table: by group, or by agent for ``agent`` and ``unacknowledged``.

``leaving`` has one value, True.
"""
