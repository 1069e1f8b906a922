"""The faults, by name: what is done, to which processes, for how long."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from galaxy.errors import HostError, UsageError
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster, resume, send

PARTS: Final = ("agent", "launcher", RESMAN, APPMASTER, "redis")
PAUSE_S: Final = 4.0
"""Twice a leader's lease."""
PAUSE_AGENT_S: Final = 12.0
"""Longer than an agent may be silent without being suspect, shorter than until it is dead."""
YIELD_S: Final = 20.0
THERE_S: Final = 10.0
"""How long somebody to strike is waited for: a process may just be being started again."""


@dataclass(frozen=True)
class Fault:
    """``verb`` is kill (-9), stop (SIGSTOP for ``lasts_s``) or cut (off Redis for ``lasts_s``)."""

    verb: str
    part: str
    lasts_s: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.verb}-{self.part}"


def _all() -> dict[str, Fault]:
    kills = [Fault("kill", part) for part in (*PARTS, "all", "appworker")]
    stops = [Fault("stop", part, PAUSE_S) for part in (*PARTS[1:], "all")]
    cuts = [Fault("cut", role, PAUSE_S) for role in ROLES]
    return {fault.name: fault for fault in (*kills, Fault("stop", "agent", PAUSE_AGENT_S), *stops, *cuts)}


FAULTS: Final = _all()


def chosen(words: Sequence[str], *, leaders: int) -> tuple[Fault, ...]:
    """Return the faults that ``words`` name: whole names, verbs or parts; all of them without words.

    Who has no standby cannot be cut off: nobody would take over.

    Raises:
        UsageError: a word names no fault, or one that needs two leaders.
    """
    possible = [fault for fault in FAULTS.values() if fault.verb != "cut" or leaders > 1]
    if not words:
        return tuple(possible)
    for word in words:
        if not any(word in (f.name, f.verb, f.part) for f in FAULTS.values()):
            raise UsageError(f'there is no fault "{word}"', details=[f"there are {', '.join(FAULTS)}"])
        if not any(word in (f.name, f.verb, f.part) for f in possible):
            raise UsageError(f'"{word}" needs a standby', hint="--leaders 2")
    return tuple(f for f in possible if {f.name, f.verb, f.part} & set(words))


def do(fault: Fault, cluster: RealCluster, chance: random.Random, victim: Callable[[], int]) -> str:
    """Do it, and return when it is over, with a word on whom it struck.

    ``victim`` returns the PID 1 of a container that may die.

    Raises:
        HostError: there is nobody to strike.
    """
    if fault.verb == "cut":
        return _cut(fault, cluster)
    if fault.part == "appworker":
        pids = [victim()]
    elif fault.part == "all":
        pids = [pid for part in PARTS for pid in living(part, cluster)]
    else:
        pids = _struck(fault.part, cluster, chance)
    if fault.verb == "kill":
        send(pids, signal.SIGKILL)
    else:
        send(pids, signal.SIGSTOP)
        try:
            time.sleep(fault.lasts_s)  # What is tested is that it oversleeps.
        finally:
            resume(pids)
    return f"process {', '.join(map(str, pids))}"


def _struck(part: str, cluster: RealCluster, chance: random.Random) -> list[int]:
    """Return one process of a part: of several leaders the one that leads."""
    pids = living(part, cluster)
    if part in ROLES and (leader := cluster.leader_pid(part)) in pids:
        return [leader]
    return [chance.choice(pids)]


def living(part: str, cluster: RealCluster, timeout_s: float = THERE_S) -> list[int]:
    """Return the processes of a part, as soon as there are any.

    Raises:
        HostError: there are none for ``timeout_s``; a fault that strikes nobody proves nothing.
    """
    deadline = time.monotonic() + timeout_s
    while not (pids := cluster.pids(part)):
        if time.monotonic() >= deadline:
            raise HostError(f"no process of {part} to strike")
        cluster.tend()
        time.sleep(0.05)  # Nobody tells from outside that it is started again.
    return pids


def _cut(fault: Fault, cluster: RealCluster) -> str:
    pid = await_linked_leader(cluster, fault.part)
    link = cluster.link_of(pid)
    assert link is not None
    link.cut()
    try:
        time.sleep(fault.lasts_s)  # What is tested is that it is away for so long.
    finally:
        link.join()
    return f"process {pid}"


def await_linked_leader(cluster: RealCluster, role: str) -> int:
    """Have one lead whose link to Redis can be cut, by killing those who lead and have none.

    Raises:
        HostError: it does not come to that.
    """
    deadline = time.monotonic() + YIELD_S
    struck = 0
    while time.monotonic() < deadline:
        pid = cluster.leader_pid(role)
        if pid and cluster.link_of(pid) is not None:
            return pid
        if pid and pid != struck:
            send([pid], signal.SIGKILL)
            struck = pid
        time.sleep(0.05)  # Nobody tells from outside who leads.
    raise HostError(f"no standby of {role} takes the lead")
