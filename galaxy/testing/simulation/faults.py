"""Faults by name. Probabilities are per message, per step, or per second of cluster time."""

from __future__ import annotations

import msgspec

from galaxy.model.base import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """The rate of every fault. All stop at ``World.calm_s``, so that convergence can be checked."""

    lose: float = 0.01
    """A message is lost."""
    double: float = 0.02
    """A message arrives twice."""
    late: float = 0.05
    """A message is delayed by up to ``late_s``, so later ones overtake it."""
    late_s: float = 8.0
    agent_crash: float = 0.004
    """An agent process dies and restarts with what it had on disk."""
    agent_crash_in_step: float = 0.002
    """An agent dies between its commit and its effects."""
    host_reboot: float = 0.001
    """A host reboots: its containers are gone, the agent's disk is kept."""
    host_cut: float = 0.002
    """A host is cut off for up to ``cut_s``; its programs keep running."""
    cut_s: float = 60.0
    mass_cut: float = 0.0015
    """Three hosts are cut off at once, for a third of ``cut_s`` up to ``cut_s``."""
    host_slow: float = 0.002
    """For up to ``slow_s``, every action on a host takes up to ``lag_s`` longer."""
    slow_s: float = 40.0
    lag_s: float = 3.0
    leader_crash: float = 0.004
    """A leader dies between any two steps."""
    leader_crash_in_step: float = 0.003
    """A leader dies between its commit and its messages."""
    leader_pause: float = 0.004
    """A leader stops for up to ``pause_s``, past its lease, and continues in the middle of a tick."""
    pause_s: float = 6.0
    step_fault: float = 0.0
    """A step of a leader's logic raises, after some or all of its work."""
    commit_answer_lost: float = 0.002
    """The answer to a leader's commit is lost, so the leader does not know whether it was written."""
    feed_late: float = 0.02
    """A standby reads the change feed up to ``late_s`` later."""
    feed_cut: float = 0.02
    """A read of the change feed, or of a table, fails."""
    feed_doubled: float = 0.02
    """The answer to a read of the change feed is lost, so the same is read again."""
    feed_trimmed: float = 0.005
    """The change feed loses all but its last entries before a read."""
    launch_fails: float = 0.03
    """Creating a container fails."""
    worker_dies: float = 0.0005
    """PID 1 of a container dies."""
    program_dies: float = 0.002
    """A service's program ends by itself."""


NO_FAULTS = Faults(
    lose=0, double=0, late=0, agent_crash=0, agent_crash_in_step=0, host_reboot=0, host_cut=0, mass_cut=0,
    host_slow=0, commit_answer_lost=0, leader_crash=0, leader_crash_in_step=0, leader_pause=0, launch_fails=0,
    worker_dies=0, program_dies=0, feed_late=0, feed_cut=0, feed_doubled=0, feed_trimmed=0,
)  # fmt: skip
"""No faults."""


def message_faults(*, lose: float = 0.0, double: float = 0.0, late_s: float = 0.0) -> Faults:
    """Return faults of the bus only; with ``late_s``, every message is delayed by up to so many seconds."""
    return msgspec.structs.replace(
        NO_FAULTS, lose=lose, double=double, late=1.0 if late_s else 0.0, late_s=late_s
    )


MESSAGE_STORM = Faults(
    double=0.6, late=0.5, late_s=25, worker_dies=0.02, launch_fails=0.2, agent_crash=0.01
)  # fmt: skip
"""Messages are duplicated and very late, while containers come and go."""

FREQUENT_CRASHES = Faults(
    lose=0.02, late=0.2, late_s=30, agent_crash=0.02, leader_crash=0.02, leader_crash_in_step=0.01,
    leader_pause=0.02, host_cut=0.01, host_reboot=0.005, mass_cut=0.006, worker_dies=0.002,
)  # fmt: skip
"""Processes crash, pause and are cut off all the time."""


STEP_FAULTS = Faults(step_fault=0.2, leader_crash=0.001)
"""Steps of leaders raise often, as with an undiscovered bug."""


def faults_of(seed: int) -> Faults:
    """Return the faults of a seed: more of them in two of five seeds, step faults in one of ten."""
    if seed % 10 == 7:
        return STEP_FAULTS
    return (Faults(), MESSAGE_STORM, Faults(), FREQUENT_CRASHES, Faults())[seed % 5]
