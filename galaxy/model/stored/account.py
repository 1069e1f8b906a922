"""Accounts: what each job holds now, and what it has held and used on each day, as ResMan stores them."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct
from galaxy.model.messages.agent import Meter
from galaxy.model.resource_seconds import NO_SECONDS, ResourceSeconds
from galaxy.model.resources import NOTHING, Resources

EARLIER: Final = 0
"""Day of the rows that sum up the days that are not kept any more."""
OTHER_JOBS: Final = ""
"""Job of the rows that sum up jobs which are not kept apart any more."""


class Account(Struct, frozen=True, kw_only=True):
    """What the containers of one job of ``user`` hold in one pool since ``since_s``.

    ``since_s`` is Unix seconds by Redis' clock. The time before it is in rows of ``DayUsage``.
    """

    job: str
    user: str
    pool: str
    held: Resources = NOTHING
    since_s: float = 0.0


class DayUsage(Struct, frozen=True, kw_only=True):
    """What the containers of one job held and used in one pool on one day.

    ``day`` is the number of the day since 1970-01-01, UTC. ``used`` has CPU and memory as agents measured
    them; its container-seconds say for how long containers were measured.
    """

    day: int
    user: str
    job: str
    pool: str
    assigned: ResourceSeconds = NO_SECONDS
    used: ResourceSeconds = NO_SECONDS
    peak_cpu_milli: int = 0
    """The most that one container was measured to use."""
    peak_memory_bytes: int = 0


class AgentMeters(Struct, frozen=True, kw_only=True):
    """The last meters of an agent whose progress is in the rows of ``DayUsage``.

    ``at_s`` is the agent's clock at the reading, and ``read_s`` Redis' clock when it was applied.
    """

    agent: str
    boot: str
    at_s: float
    read_s: float
    meters: dict[str, Meter] = {}


def account_key(user: str, job: str, pool: str) -> str:
    """Return the key of an account. None of the three contains a slash."""
    return f"{user}/{job}/{pool}"


def day_key(user: str, job: str, pool: str, day: int) -> str:
    """Return the key of a row of ``DayUsage``: that of its account, then the day."""
    return f"{user}/{job}/{pool}/{day:06d}"
