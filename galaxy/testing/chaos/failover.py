"""Failover of one of two leaders: kill it, stop it or cut it off, and measure until the other works."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from galaxy.errors import HostError
from galaxy.nexus import keys
from galaxy.nexus.connection import reaching
from galaxy.testing.chaos.faults import await_proxied_leader
from galaxy.testing.chaos.real_cluster import RealCluster, resume, send_signal
from galaxy.testing.chaos.tcp_proxy import Direction
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload

VERBS: Final = ("kill", "stop", "cut")
FAULT_S: Final = 3.0
"""How long a stop or cut lasts, one and a half leases; longer if no other leader works yet."""
STEADY_S: Final = 0.7
"""A leader that has led for this long has loaded its state and renewed its lease."""
POLL_S: Final = 0.005
"""The resolution of the figures: how often Redis is read during a failover."""
WAIT_S: Final = 30.0


@dataclass(frozen=True)
class Failover:
    """Seconds from the fault until another leader held the lock, had committed, and a new program ran.

    The program belongs to a batch job that is submitted at the moment of the fault. ``refusal`` is
    why the old leader gave up when the fault ended, from its log; "" after a kill.
    """

    role: str
    verb: str
    led_s: float
    committed_s: float
    program_s: float
    refusal: str


class LeaderPair:
    """The two leaders of one role. ``workload`` submits jobs, ``listener`` receives from their programs."""

    def __init__(
        self, cluster: RealCluster, role: str, workload: Workload, listener: WitnessListener
    ) -> None:
        self._cluster = cluster
        self._role = role
        self._workload = workload
        self._listener = listener

    def fail(self, verb: str, *, direction: Direction = "both") -> Failover:
        """Inject ``verb`` into the leader, and return the figures once one leads and one stands by again.

        With direction ``out`` a cut begins with the leader's next commit: the commit is sent, and
        arrives when another process leads.

        Raises:
            HostError: there are no two leaders, or no failover happens, within ``WAIT_S``.
        """
        self._await_both()
        pid = await_proxied_leader(self._cluster, self._role) if verb == "cut" else 0
        self._await_both()
        pid = pid or self._cluster.leader_pid(self._role)
        epoch, log = self._epoch_in(keys.epoch(self._role)), self._log(pid)
        log_bytes = log.stat().st_size
        began_s = time.monotonic()
        self._inject(verb, pid, direction)
        try:
            program = _Program(self._workload, self._listener, f"probe-{epoch}-{verb}")
            led_s = self._until(lambda: self._epoch_in(keys.epoch(self._role)) > epoch, "another leads")
            committed_s = self._until(
                lambda: self._epoch_in(keys.committed(self._role)) > epoch, "the new leader commits"
            )
            program_s = program.started_s()
            time.sleep(max(0.0, FAULT_S - (time.monotonic() - began_s)))  # It outlasts the lease.
        finally:
            self._end_fault(verb, pid)
        refusal = "" if verb == "kill" else self._await_refusal(log, log_bytes)
        self._await_both()
        return Failover(
            self._role, verb, led_s - began_s, committed_s - began_s, program_s - began_s, refusal
        )

    def _inject(self, verb: str, pid: int, direction: Direction) -> None:
        if verb == "cut":
            proxy = self._cluster.proxy_of(pid)
            assert proxy is not None
            proxy.cut(direction, at=keys.committed(self._role).encode() if direction == "out" else b"")
        else:
            send_signal([pid], signal.SIGKILL if verb == "kill" else signal.SIGSTOP)

    def _end_fault(self, verb: str, pid: int) -> None:
        proxy = self._cluster.proxy_of(pid)
        if verb == "cut" and proxy is not None:
            proxy.restore()
        resume([pid])

    def _await_both(self) -> None:
        """Return once one has led for ``STEADY_S`` and another stands by, as Redis sees it."""

        def both() -> bool:
            self._cluster.restart_standbys()
            pid = self._cluster.leader_pid(self._role)
            return pid in self._cluster.pids(self._role) and self._is_steady()

        self._until(both, "one leads and one stands by")

    def _is_steady(self) -> bool:
        """Return whether one has led for ``STEADY_S`` and another blocks until the lock is released."""
        admin = self._cluster.admin
        leader = admin.leader(self._role)
        with reaching(admin.address):
            seconds, microseconds = admin.client.time()
            clients = admin.client.client_list()
        if leader is None or seconds + microseconds / 1e6 - leader.since_s < STEADY_S:
            return False
        waiting = {c["name"] for c in clients if c["cmd"] == "blpop" and "b" in c["flags"]}
        return any(name.startswith(f"{self._role}@") and name != leader.address for name in waiting)

    def _epoch_in(self, key: str) -> int:
        """Return the epoch at the start of a key's value; 0 without one."""
        with reaching(self._cluster.admin.address):
            value: object = self._cluster.admin.client.get(key)
        return int(value.partition(b":")[0]) if isinstance(value, bytes) else 0

    def _log(self, pid: int) -> Path:
        standby = [s.log for s in self._cluster.standbys if s.process is not None and s.process.pid == pid]
        return standby[0] if standby else self._cluster.folder / "logs" / f"{self._role}.log"

    def _await_refusal(self, log: Path, log_bytes: int) -> str:
        """Wait until the old leader logs that it no longer leads, and return the cause."""

        def cause() -> str:
            text = log.read_bytes()[log_bytes:].decode(errors="replace")
            found = re.search(r"event=leader\.lost .*cause=(.*)", text)
            return found[1] if found else ""

        self._until(lambda: bool(cause()), f"the old leader of {self._role} gives up")
        return cause()

    def _until(self, true: Callable[[], bool], what: str) -> float:
        """Poll until ``true()``, and return that time by the monotonic clock.

        Raises:
            HostError: it is not true within ``WAIT_S``.
        """
        deadline = time.monotonic() + WAIT_S
        while not true():
            if time.monotonic() > deadline:
                raise HostError(f"not in {WAIT_S:.0f} s: {what}", details=[self._cluster.log_tails()])
            time.sleep(POLL_S)
        return time.monotonic()


class _Program:
    """A batch job that is submitted now from a thread, and when its program starts."""

    def __init__(self, workload: Workload, listener: WitnessListener, name: str) -> None:
        self._listener = listener
        self._name = name
        self._thread = threading.Thread(
            target=workload.submit_batch, args=(name,), name="chaos-probe", daemon=True
        )
        self._thread.start()

    def started_s(self) -> float:
        """Return when the program started, by the monotonic clock.

        Raises:
            HostError: it did not start within ``WAIT_S``.
        """
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with self._listener.lock:
                started_s = self._listener.log.batch_started_s.get(self._name)
            if started_s is not None:
                self._thread.join(WAIT_S)
                return started_s
            time.sleep(POLL_S)
        raise HostError(f"a job submitted while the leader was away did not run in {WAIT_S:.0f} s")
