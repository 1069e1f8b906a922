"""What can go wrong, by name; probabilities are per message or per second of cluster time."""

from __future__ import annotations

from galaxy.model.base import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """Rates of every fault. All of them stop at ``World.calm_s``, so that liveness can be asked for."""

    lose: float = 0.01
    """A message vanishes."""
    double: float = 0.02
    """A message arrives twice."""
    late: float = 0.05
    """A message is delayed by up to ``late_s``, and so overtaken."""
    late_s: float = 8.0
    agent_crash: float = 0.004
    """An agent process dies and comes back with what it had on disk."""
    agent_crash_in_step: float = 0.002
    """An agent dies between its commit and its effects."""
    host_wipe: float = 0.001
    """A host reboots: every container is gone, the agent's disk is not."""
    host_cut: float = 0.002
    """A host is cut off for up to ``cut_s`` and its programs run on."""
    cut_s: float = 60.0
    mass_cut: float = 0.0015
    """Three hosts are cut off at the same instant, for a third of ``cut_s`` to all of it."""
    host_slow: float = 0.002
    """For up to ``slow_s``, whatever is done on a host takes up to ``lag_s`` longer."""
    slow_s: float = 40.0
    lag_s: float = 3.0
    leader_crash: float = 0.004
    """A leader dies between any two steps."""
    leader_crash_in_step: float = 0.003
    """A leader dies after its commit and before its messages leave."""
    leader_pause: float = 0.004
    """A leader stops for up to ``pause_s``, past its lease, and goes on amid a tick."""
    pause_s: float = 6.0
    leader_stumble: float = 0.0
    """A step of a leader's logic raises, after all or some of what it does; for each step."""
    store_unsure: float = 0.002
    """The answer to a leader's commit is lost: it was written, or it was not."""
    launch_fails: float = 0.03
    """Making a container fails."""
    worker_dies: float = 0.0005
    """PID 1 of a container dies."""
    program_dies: float = 0.002
    """A service's program ends by itself."""


CALM = Faults(
    lose=0, double=0, late=0, agent_crash=0, agent_crash_in_step=0, host_wipe=0, host_cut=0, mass_cut=0,
    host_slow=0, store_unsure=0, leader_crash=0, leader_crash_in_step=0, leader_pause=0, launch_fails=0,
    worker_dies=0, program_dies=0,
)  # fmt: skip
"""Nothing goes wrong."""

STORM = Faults(
    double=0.6, late=0.5, late_s=25, worker_dies=0.02, launch_fails=0.2, agent_crash=0.01
)  # fmt: skip
"""Messages come twice and very late, while containers come and go."""

TURMOIL = Faults(
    lose=0.02, late=0.2, late_s=30, agent_crash=0.02, leader_crash=0.02, leader_crash_in_step=0.01,
    leader_pause=0.02, host_cut=0.01, host_wipe=0.005, mass_cut=0.006, worker_dies=0.002,
)  # fmt: skip
"""Everybody dies, sleeps and is cut off all the time."""


STUMBLES = Faults(leader_stumble=0.2, leader_crash=0.001)
"""Leaders have a bug that nobody has found yet."""


def faults_of(seed: int) -> Faults:
    """Return what goes wrong in a seed: heavier weather in two of five, stumbling leaders in one of ten."""
    if seed % 10 == 7:
        return STUMBLES
    return (Faults(), STORM, Faults(), TURMOIL, Faults())[seed % 5]
