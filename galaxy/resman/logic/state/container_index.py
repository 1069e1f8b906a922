"""What a row of the containers table is: a slot or an earlier life, owing or not, counted or not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from galaxy.model.messages.container import ContainerState
from galaxy.model.stored.container import Container

OWING: Final = frozenset({ContainerState.ALLOCATING, ContainerState.DESTROYING})
PLACED: Final = OWING | {ContainerState.READY}


def counts(key: str, row: Container | None) -> bool:
    """Whether a row counts against a quota: a slot that is placed, or was and shall be again.

    A slot counts once, however many earlier lives of it are still to be destroyed.
    """
    if row is None or key != row.container:
        return False
    return row.state in PLACED or (row.claimed and row.state is ContainerState.PENDING)


def leaving_key(row: Container) -> str:
    """Return the key of the row of an earlier life that its agent has still to destroy."""
    return f"{row.container}#{row.incarnation}@{row.agent}"


def _group(row: Container) -> Hashable:
    return row.group


def _agent(row: Container) -> Hashable | None:
    return row.agent or None


def _owing(row: Container) -> Hashable | None:
    return row.agent if row.agent and row.state in OWING else None


def _waiting(row: Container) -> Hashable | None:
    return row.group if row.state is ContainerState.PENDING else None


def _live(row: Container) -> Hashable | None:
    return None if row.state is ContainerState.GONE else row.group


INDEXES: Final[Mapping[str, Callable[[Container], Hashable | None]]] = {
    "group": _group,
    "agent": _agent,
    "owing": _owing,
    "waiting": _waiting,
    "live": _live,
}
"""Of the containers table, by name."""
