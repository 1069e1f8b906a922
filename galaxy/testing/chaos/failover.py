"""Two leaders of a kind: one is killed, stopped or cut off; how long until the other does its work."""

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
from galaxy.testing.chaos.faults import await_linked_leader
from galaxy.testing.chaos.real_cluster import RealCluster, resume, send
from galaxy.testing.chaos.tcp_proxy import Way
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload

VERBS: Final = ("kill", "stop", "cut")
LASTS_S: Final = 3.0
"""A fault lasts so long, one and a half leases, if another works by then."""
STEADY_S: Final = 0.7
"""Who leads for so long has loaded its state, and renewed its lease."""
LOOK_S: Final = 0.005
"""How closely Redis is watched while a leader is away; figures are as coarse as this."""
WAIT_S: Final = 30.0


@dataclass(frozen=True)
class Failover:
    """Seconds from the fault until another held the lock, had committed, and had a new program run.

    The program is one of a batch job that somebody submits as the leader goes. ``refused`` is
    what the old leader wrote of its end when it was back; "" of one that was killed.
    """

    role: str
    verb: str
    led_s: float
    committed_s: float
    program_s: float
    refused: str


class Pair:
    """One role of a cluster with two leaders. ``load`` submits, ``watch`` hears of the programs."""

    def __init__(self, cluster: RealCluster, role: str, load: Workload, watch: WitnessListener) -> None:
        self._cluster = cluster
        self._role = role
        self._load = load
        self._watch = watch

    def fail(self, verb: str, *, way: Way = "both") -> Failover:
        """Do ``verb`` to the leader, and return what came of it once both are there again.

        A cut ``out`` begins with the leader's next commit: it is sent, and arrives when another leads.

        Raises:
            HostError: it does not come to two leaders, or to a failover.
        """
        self._await_both()
        pid = await_linked_leader(self._cluster, self._role) if verb == "cut" else 0
        self._await_both()
        pid = pid or self._cluster.leader_pid(self._role)
        epoch, log = self._number(keys.epoch(self._role)), self._log(pid)
        written = log.stat().st_size
        began_s = time.monotonic()
        self._strike(verb, pid, way)
        try:
            program = _Program(self._load, self._watch, f"probe-{epoch}-{verb}")
            led_s = self._until(lambda: self._number(keys.epoch(self._role)) > epoch, "another leads")
            committed_s = self._until(lambda: self._number(keys.committed(self._role)) > epoch, "it commits")
            program_s = program.began_s()
            time.sleep(max(0.0, LASTS_S - (time.monotonic() - began_s)))  # It shall oversleep.
        finally:
            self._end(verb, pid)
        refused = "" if verb == "kill" else self._refusal(log, written)
        self._await_both()
        return Failover(
            self._role, verb, led_s - began_s, committed_s - began_s, program_s - began_s, refused
        )

    def _strike(self, verb: str, pid: int, way: Way) -> None:
        link = self._cluster.link_of(pid)
        if verb == "cut":
            assert link is not None
            link.cut(way, at=keys.committed(self._role).encode() if way == "out" else b"")
        else:
            send([pid], signal.SIGKILL if verb == "kill" else signal.SIGSTOP)

    def _end(self, verb: str, pid: int) -> None:
        link = self._cluster.link_of(pid)
        if verb == "cut" and link is not None:
            link.join()
        resume([pid])

    def _await_both(self) -> None:
        """Return when one leads for a while and another stands by, which Redis knows."""

        def both() -> bool:
            self._cluster.tend()
            pid = self._cluster.leader_pid(self._role)
            return pid in self._cluster.pids(self._role) and self._steady()

        self._until(both, "one leads and one stands by")

    def _steady(self) -> bool:
        """Tell whether somebody leads for ``STEADY_S``, and somebody else is blocked until he lets go."""
        admin = self._cluster.admin
        leader = admin.leader(self._role)
        with reaching(admin.address):
            seconds, microseconds = admin.client.time()
            clients = admin.client.client_list()
        if leader is None or seconds + microseconds / 1e6 - leader.since_s < STEADY_S:
            return False
        waiting = {c["name"] for c in clients if c["cmd"] == "blpop" and "b" in c["flags"]}
        return any(name.startswith(f"{self._role}@") and name != leader.address for name in waiting)

    def _number(self, key: str) -> int:
        """Return the epoch at the beginning of a key's value; 0 when it has none."""
        with reaching(self._cluster.admin.address):
            value: object = self._cluster.admin.client.get(key)
        return int(value.partition(b":")[0]) if isinstance(value, bytes) else 0

    def _log(self, pid: int) -> Path:
        ours = [s.log for s in self._cluster.standbys if s.process is not None and s.process.pid == pid]
        return ours[0] if ours else self._cluster.folder / "logs" / f"{self._role}.log"

    def _refusal(self, log: Path, written: int) -> str:
        """Wait for what the old leader has to say of its end, and return it."""

        def said() -> str:
            text = log.read_bytes()[written:].decode(errors="replace")
            found = re.search(r"event=leader\.lost .*cause=(.*)", text)
            return found[1] if found else ""

        self._until(lambda: bool(said()), f"the old leader of {self._role} gives up")
        return said()

    def _until(self, true: Callable[[], bool], what: str) -> float:
        """Return when it is so, by the monotonic clock. Nobody tells from outside.

        Raises:
            HostError: it does not come to that.
        """
        deadline = time.monotonic() + WAIT_S
        while not true():
            if time.monotonic() > deadline:
                raise HostError(f"not in {WAIT_S:.0f} s: {what}", details=[self._cluster.last_words()])
            time.sleep(LOOK_S)
        return time.monotonic()


class _Program:
    """A batch that is submitted now, and when its program began."""

    def __init__(self, load: Workload, watch: WitnessListener, name: str) -> None:
        self._watch = watch
        self._name = name
        self._thread = threading.Thread(target=load.probe, args=(name,), name="chaos-probe", daemon=True)
        self._thread.start()

    def began_s(self) -> float:
        """Return when it began, by the monotonic clock.

        Raises:
            HostError: it did not.
        """
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with self._watch.lock:
                begun_s = self._watch.ledger.begun_s.get(self._name)
            if begun_s is not None:
                self._thread.join(WAIT_S)
                return begun_s
            time.sleep(LOOK_S)
        raise HostError(f"a job submitted while the leader was away did not run in {WAIT_S:.0f} s")
