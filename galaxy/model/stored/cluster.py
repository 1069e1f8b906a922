"""Sums over a leader's tables, stored beside them, so that a query reads a few rows and no whole table."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import Reason
from galaxy.model.resources import NOTHING, Resources

ALL: Final = "all"
"""Key of the one row of a table of sums."""


class AgentLoad(Struct, frozen=True, kw_only=True):
    """What the containers of one agent ask for together, and their names, sorted.

    ``state`` and ``total`` are those of the agent's record when the load was recorded.
    """

    agent: str
    state: AgentState = AgentState.ALIVE
    total: Resources = NOTHING
    assigned: Resources = NOTHING
    containers: tuple[str, ...] = ()
    left: int = 0
    closed: str = ""
    """These two are as in ``AgentRecord``."""


class AgentSums(Struct, frozen=True, kw_only=True):
    """The sum over every ``AgentLoad``: agents by state, and amounts of those that are not dead.

    ``refused`` are agents whose heartbeats ResMan cannot read; they need not have a record.
    """

    agents: dict[str, int] = {}
    total: Resources = NOTHING
    assigned: Resources = NOTHING
    refused: tuple[Reason, ...] = ()
    left: dict[str, int] = {}
    """By dead agent: containers that were replaced elsewhere, and may still run there."""
    closed: dict[str, int] = {}
    """Agents on which operators let nothing new be placed, by why: see ``AgentRecord.closed``."""


class JobSums(Struct, frozen=True, kw_only=True):
    """Numbers of jobs by state, of pods by phase, and of stored packages with their size and its limit."""

    jobs: dict[str, int] = {}
    pods: dict[str, int] = {}
    packages: int = 0
    packages_bytes: int = 0
    packages_bytes_max: int = 0
    """0 while there are no packages."""
