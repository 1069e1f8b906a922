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
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster, resume, send_signal

PARTS: Final = ("agent", "launcher", RESMAN, APPMASTER, "redis")
PAUSE_S: Final = 4.0
"""Twice a leader's lease."""
PAUSE_AGENT_S: Final = 12.0
"""Long enough that the agent becomes suspect, too short for it to be declared dead."""
LEADER_WAIT_S: Final = 20.0
PROCESS_WAIT_S: Final = 10.0
"""How long to wait for a missing target: its process may just be restarting."""
POLL_S: Final = 0.05


@dataclass(frozen=True)
class Fault:
    """``verb`` is kill (SIGKILL), stop (SIGSTOP for ``lasts_s``) or cut (no Redis for ``lasts_s``)."""

    verb: str
    part: str
    lasts_s: float = 0.0

    @property
    def name(self) -> str:
        """``VERB-PART``, as users name it."""
        return f"{self.verb}-{self.part}"


def _all_faults() -> dict[str, Fault]:
    kills = [Fault("kill", part) for part in (*PARTS, "all", "appworker")]
    stops = [Fault("stop", part, PAUSE_S) for part in (*PARTS[1:], "all")]
    cuts = [Fault("cut", role, PAUSE_S) for role in ROLES]
    return {fault.name: fault for fault in (*kills, Fault("stop", "agent", PAUSE_AGENT_S), *stops, *cuts)}


FAULTS: Final = _all_faults()


def select_faults(selectors: Sequence[str], *, leaders: int) -> tuple[Fault, ...]:
    """Return the faults that ``selectors`` select (names, verbs or parts), or every possible fault.

    A leader is cut off only where a standby exists: otherwise nothing would take over.

    Raises:
        UsageError: a selector matches no fault, or only faults that need two leaders.
    """
    possible = [fault for fault in FAULTS.values() if fault.verb != "cut" or leaders > 1]
    if not selectors:
        return tuple(possible)
    for selector in selectors:
        if not any(selector in (f.name, f.verb, f.part) for f in FAULTS.values()):
            raise UsageError(f'there is no fault "{selector}"', details=[f"there are {', '.join(FAULTS)}"])
        if not any(selector in (f.name, f.verb, f.part) for f in possible):
            raise UsageError(f'"{selector}" needs a standby', hint="--leaders 2")
    return tuple(f for f in possible if {f.name, f.verb, f.part} & set(selectors))


def inject(fault: Fault, cluster: RealCluster, rng: random.Random, victim: Callable[[], int]) -> str:
    """Inject the fault, return when it is over, and name the processes that it hit.

    ``victim`` returns the PID 1 of a container that may be killed.

    Raises:
        HostError: no process of that part exists.
    """
    if fault.verb == "cut":
        return _cut(fault, cluster)
    if fault.part == "appworker":
        pids = [victim()]
    elif fault.part == "all":
        pids = [pid for part in PARTS for pid in await_processes(part, cluster)]
    else:
        pids = _target(fault.part, cluster, rng)
    if fault.verb == "kill":
        send_signal(pids, signal.SIGKILL)
    else:
        send_signal(pids, signal.SIGSTOP)
        try:
            time.sleep(fault.lasts_s)  # The pause is the fault.
        finally:
            resume(pids)
    return f"process {', '.join(map(str, pids))}"


def await_processes(part: str, cluster: RealCluster, timeout_s: float = PROCESS_WAIT_S) -> list[int]:
    """Return the processes of a part as soon as it has any.

    Raises:
        HostError: it has none for ``timeout_s``. A fault that hits nothing proves nothing.
    """
    deadline = time.monotonic() + timeout_s
    while not (pids := cluster.pids(part)):
        if time.monotonic() >= deadline:
            raise HostError(f"no process of {part} to hit")
        cluster.restart_standbys()
        time.sleep(POLL_S)
    return pids


def await_proxied_leader(cluster: RealCluster, role: str) -> int:
    """Return the leader's pid once it is a process whose connection to Redis can be cut.

    Leaders that reach Redis directly are killed until a standby behind a proxy leads.

    Raises:
        HostError: no such standby leads within ``LEADER_WAIT_S``.
    """
    deadline = time.monotonic() + LEADER_WAIT_S
    killed = 0
    while time.monotonic() < deadline:
        pid = cluster.leader_pid(role)
        if pid and cluster.proxy_of(pid) is not None:
            return pid
        if pid and pid != killed:
            send_signal([pid], signal.SIGKILL)
            killed = pid
        time.sleep(POLL_S)
    raise HostError(f"no standby of {role} takes the lead")


def _target(part: str, cluster: RealCluster, rng: random.Random) -> list[int]:
    """Return one process of a part: of several leaders the one that leads."""
    pids = await_processes(part, cluster)
    if part in ROLES and (leader := cluster.leader_pid(part)) in pids:
        return [leader]
    return [rng.choice(pids)]


def _cut(fault: Fault, cluster: RealCluster) -> str:
    pid = await_proxied_leader(cluster, fault.part)
    proxy = cluster.proxy_of(pid)
    assert proxy is not None
    proxy.cut()
    try:
        time.sleep(fault.lasts_s)  # The outage is the fault.
    finally:
        proxy.restore()
    return f"process {pid}"
