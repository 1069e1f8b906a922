"""Every threshold of ResMan."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.errors import UsageError
from galaxy.model.messages.liveness import order_ttl_s
from galaxy.operations.config import RequestConfig

SUSPECT_S_MIN: Final = 3.0
"""The heartbeat interval of agents, two seconds, and a margin."""


class ResManConfig(RequestConfig, frozen=True, kw_only=True):
    """When ResMan acts, how fast and how strictly. Times are seconds, shares 0 to 1."""

    suspect_s: float = 10.0
    """An agent is suspect, and gets no new containers, this long after its last heartbeat."""
    dead_s: float = 30.0
    """An agent is dead, and its containers are placed elsewhere, this long after its last heartbeat."""
    gap_s_max: float = 5.0
    """After a longer gap between two readings of heartbeats, every age counts from its end."""

    safe_start_share: float = 0.85
    """A new leader places nothing until this share of the known agents has sent a heartbeat."""
    safe_start_wait_s: float = 10.0
    """After this time a new leader places anyway, unless the missing agents are a mass loss."""
    mass_loss_share: float = 0.5
    """When this share of the agents is away at once, ResMan assumes a network fault: safe mode."""
    mass_loss_min: int = 2
    """Fewer agents than this are never a mass loss."""
    mass_loss_hold_s: float = 600.0
    """After this time, the agents of a mass loss count as dead after all."""
    replace_min: int = 10
    """Containers of dead agents that are replaced per second."""
    replace_share: float = 0.1
    """The same as a share of all containers; the larger number applies."""

    resend_first_s: float = 2.0
    """First wait for the outcome of a command; doubles up to ``resend_s_max``."""
    resend_s_max: float = 15.0
    resends_per_step_max: int = 200
    """Commands that are sent again in one step; the others wait."""
    order_ttl_s: float = 25.0
    """An order expires this long after its agent's last heartbeat; less than ``dead_s``."""
    create_s_max: float = 120.0
    """A container that is not created within this time is placed elsewhere."""
    digest_settle_s: float = 2.0
    """An agent's digest is compared only when nothing of it has changed for this long."""
    commands_per_message_max: int = 1000
    """Create commands, and destroy commands, in one message."""

    backoff_first_s: float = 1.0
    """First wait after a container failed; doubles up to ``backoff_s_max``."""
    backoff_s_max: float = 60.0
    reset_s: float = 300.0
    """A container that was ready for this long counts failures from zero again."""
    flaky_failures: int = 3
    """After this many consecutive failures, an agent is chosen last and creates one container at a time."""
    flaky_s: float = 60.0
    """After this time without a failure, such an agent is used normally again."""
    creating_max: int = 64
    """Containers that one agent creates at once."""

    require_enforced: tuple[str, ...] = ()
    """Limits that an agent must really enforce to get any container: of cpu, memory, pids, io,
    disk, namespaces, seccomp, user. Empty admits agents in a reduced mode as well."""
    placements_max: int = 500
    """Containers placed in one step, in turn for all groups; the rest follows in the next. So the first
    containers of a large burst start while others are still being placed."""
    preemptions_per_step_max: int = 32
    """Containers for which room is made in one step, by preemption or reservation; 0 turns both off."""
    reserve_after_s: float = 30.0
    """A batch container that fits nowhere is given a reservation after this time."""
    reservation_s: float = 300.0
    """A reservation ends after this time, and the next of the same group begins after as long again."""
    replicas_max: int = 10_000
    slots_per_message_max: int = 20_000
    removed_max: int = 10_000
    """Removed groups that are kept, so that a late order does not create one again."""
    removed_s: float = 600.0
    """How long a removed group is kept."""
    usage_days_max: int = 100
    """Days whose usage is kept apart; what was used before is kept as one sum for each user and pool."""
    usage_rows_max: int = 20_000
    """Rows of usage, one for each job, pool and day. Beyond it, the jobs of the oldest days are summed up."""


def with_liveness_times(config: ResManConfig, *, suspect_s: float, dead_s: float) -> ResManConfig:
    """Return ``config`` with other times after which a silent agent is suspect, and dead.

    Raises:
        UsageError: one late heartbeat could make an agent suspect, or dead before it is suspect.
    """
    if suspect_s < SUSPECT_S_MIN:
        raise UsageError(
            f"an agent cannot be suspect after {suspect_s:g} s: it sends a heartbeat every two seconds",
            hint=f"--suspect-after {SUSPECT_S_MIN:g}s or longer",
        )
    if dead_s < 2 * suspect_s:
        raise UsageError(
            f"an agent cannot be dead after {dead_s:g} s and suspect after {suspect_s:g} s",
            hint="--dead-after twice as long as --suspect-after, or longer",
        )
    return replace(config, suspect_s=suspect_s, dead_s=dead_s, order_ttl_s=order_ttl_s(dead_s))
