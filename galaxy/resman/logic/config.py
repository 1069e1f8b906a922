"""Every threshold of ResMan."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.errors import UsageError
from galaxy.operations.config import RequestConfig

SUSPECT_S_MIN = 3.0
"""One beat of an agent, two seconds, and a late one."""
COMMAND_SHARE = 5 / 6
"""Of the time after which an agent is dead: what it may still obey of an old message."""


class ResManConfig(RequestConfig, frozen=True, kw_only=True):
    """How patient, how quick and how strict ResMan is. Times are seconds, shares 0 to 1."""

    suspect_s: float = 10.0
    """Without a beat for so long, an agent gets nothing new."""
    dead_s: float = 30.0
    """Without a beat for so long, its containers are placed elsewhere."""
    blind_s: float = 5.0
    """Between two readings of the beats more than this means that the reader was blind: every
    age counts anew from there."""

    safe_start_share: float = 0.85
    """A new leader places nothing until this share of the known agents has beaten."""
    safe_start_wait_s: float = 10.0
    """Or until so much time has passed, unless the missing are a mass loss."""
    mass_loss_share: float = 0.5
    """This share of the agents away at once, or more, is the network: safe mode."""
    mass_loss_min: int = 2
    """Fewer agents than this are never a mass loss."""
    mass_loss_hold_s: float = 600.0
    """A mass loss that lasts longer than this is believed after all."""
    replace_min: int = 10
    """Containers of dead agents that are placed anew each second, at least."""
    replace_share: float = 0.1
    """Or this share of all containers, if that is more."""

    resend_s: float = 2.0
    """First wait for the outcome of a command; doubles up to ``resend_s_max``."""
    resend_s_max: float = 15.0
    command_life_s: float = 25.0
    """A message to an agent is void so long after its last beat; less than ``dead_s``."""
    create_s_max: float = 120.0
    """A container that is not made after so long is given up there."""
    settle_s: float = 2.0
    """A digest counts when the agent's commands have been settled for so long."""
    commands_max: int = 1000
    """Commands in one message."""

    backoff_s: float = 1.0
    """First wait after a container failed; doubles up to ``backoff_s_max``."""
    backoff_s_max: float = 60.0
    reset_s: float = 300.0
    """A container that was ready for so long has its earlier failures forgiven."""
    flaky_failures: int = 3
    """Failures in a row to make containers after which an agent is chosen last, one at a time."""
    flaky_s: float = 60.0
    """Time without a failure after which such an agent is trusted again."""
    making_max: int = 64
    """Containers that one agent makes at once."""

    require_enforced: tuple[str, ...] = ()
    """Limits that an agent must really enforce to get any container: of cpu, memory, pids, io,
    disk, namespaces, seccomp, user. Empty lets a lesser mode run what it can, as stated."""
    placements_max: int = 5000
    """Containers placed in one step; the rest follow in the next."""
    replicas_max: int = 10_000
    slots_per_message: int = 20_000
    removed_max: int = 10_000
    """Removed groups that are remembered, so that a late order does not bring one back."""
    removed_s: float = 600.0


def patience(config: ResManConfig, *, suspect_s: float, dead_s: float) -> ResManConfig:
    """Return ``config`` with other times after which a silent agent is suspect, and dead.

    Raises:
        UsageError: an agent could be dead before it is suspect, or for one late beat.
    """
    if suspect_s < SUSPECT_S_MIN:
        raise UsageError(
            f"an agent cannot be suspect after {suspect_s:g} s: it beats every two seconds",
            hint=f"--suspect-after {SUSPECT_S_MIN:g}s or longer",
        )
    if dead_s < 2 * suspect_s:
        raise UsageError(
            f"an agent cannot be dead after {dead_s:g} s and suspect after {suspect_s:g} s",
            hint="--dead-after twice as long as --suspect-after, or longer",
        )
    return replace(config, suspect_s=suspect_s, dead_s=dead_s, command_life_s=COMMAND_SHARE * dead_s)
