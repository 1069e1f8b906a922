"""Every operation of the API, by its name."""

from __future__ import annotations

from typing import Any, Final

from galaxy.model.api import (
    agents,
    audit,
    cluster,
    drains,
    jobs,
    machines,
    packages,
    quotas,
    safemode,
    secrets,
    sessions,
    top,
    usage,
    users,
)
from galaxy.model.api.body import Body

SUBJECTS: Final = (
    jobs, sessions, agents, cluster, users, audit, secrets, quotas, packages, safemode, machines, drains,
    usage, top,
)  # fmt: skip
"""Modules that declare operations; a new operation in one of them needs no other registration."""


def bodies_in(*modules: Any) -> dict[str, type[Body[Any]]]:
    """Return the operations that ``modules`` declare, by name.

    Raises:
        ValueError: two of them have the same name.
    """
    bodies: dict[str, type[Body[Any]]] = {}
    for module in modules:
        for kind in vars(module).values():
            if not (isinstance(kind, type) and issubclass(kind, Body) and kind.op):
                continue
            if bodies.setdefault(kind.op, kind) is not kind:
                raise ValueError(f"{kind.op} is declared twice")
    return bodies


BODIES: Final = bodies_in(*SUBJECTS)


def bodies_of(role: str) -> dict[str, type[Body[Any]]]:
    """Return the operations that the leader of ``role`` answers, by name."""
    return {op: body for op, body in BODIES.items() if body.answered_by == role}
