"""Time from an order to the first instruction of the user's program: Galaxy, bwrap, runc and crun.

``python bench/launch.py [--quick]``, as root. Galaxy and its peers run the same program,
``/bin/sh -c 'exec .../tick'``, in turn. ``tick`` is 150 bytes of machine code that only writes
CLOCK_MONOTONIC, which is the same clock inside and outside a container. Galaxy is measured from
``Runtime.launch`` through the launcher, all cgroups and namespaces, AppWorker and its order, to the
program; the peers from their spawn. Also measured: containers per second, and AppWorkers' memory.

The conditions are those of production: the launcher runs at nice -10 (programs at 0), and creates two
warm processes whenever it is idle. Entering a cgroup, which Galaxy, crun and runc do and bwrap does not,
waits for an RCU grace period (10 ms and more) unless the host's cgroups are mounted with
``favordynmods``; ``cgroup_enter_ms`` shows which.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch_peers import (
    TIMEOUT_S,
    UID,
    HiddenUnified,
    bwrap,
    milliseconds,
    run_peer,
    write_bundle,
    write_tick,
)

from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.runtime import Destroyed, Launched, LaunchFailed, Runtime
from galaxy.model.base import encode
from galaxy.model.jobspec.spec import CpuSpec, Medium, MemorySpec, RestartSpec, TaskSpec
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.model.messages.pod import PodOrder
from galaxy.model.messages.worker import Order
from galaxy.units import MIB

ROUNDS, ROUNDS_QUICK = 50, 10
CROWD, CROWD_QUICK = 100, 20


class Galaxy:
    """Galaxy, through the calls that an agent makes."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._tools = tools
        self._serial = 0
        self._state = folder / "state"
        self._state.mkdir()
        self.runtime = Runtime(self._state, cgroup_root=f"galaxy-bench-{os.getpid()}", mode="full")
        self.runtime.start()

    def plan(self, medium: Medium = Medium.TMPFS, *, network: str = "host") -> LaunchPlan:
        self._serial += 1
        return LaunchPlan(
            container=f"bench-000000.{self._serial}",
            incarnation=1,
            host="bench",
            demand=Demand(
                tasks=(TaskDemand(name="tick", cpu_milli=1000, memory_bytes=64 * MIB, pids_max=64),),
                workspace=VolumeDemand(path="/home/galaxy", size_bytes=16 * MIB, medium=medium),
                network=network,
            ),
            run_uid=UID,
            run_gid=UID,
            system_dirs=(str(self._tools),),
        )

    def order(self, plan: LaunchPlan, start: str) -> bytes:
        task = TaskSpec(
            name="tick",
            cpu=CpuSpec(millicores=1000),
            memory=MemorySpec(size=64 * MIB),
            start=start,
            restart=RestartSpec(policy="never"),
        )
        return encode(
            Order(
                order=PodOrder(
                    pod=plan.container,
                    incarnation=1,
                    generation=1,
                    job="bench-000000",
                    index=0,
                    revision=1,
                    run=True,
                    tasks=(task,),
                    batch=True,
                )
            )
        )

    def tick(self, medium: Medium, *, network: str = "host") -> float:
        """Launch a container that runs ``tick`` and destroy it; return the start latency in milliseconds."""
        plan = self.plan(medium, network=network)
        order = self.order(plan, f"exec {self._tools}/tick")
        started = time.monotonic_ns()
        self.runtime.launch(plan)
        self.wait(Launched, 1)
        worker = self.connect(plan)
        worker.send(order)
        out = self.runtime.log_path(plan.container, 1) / "tick.stdout"
        until = time.monotonic() + TIMEOUT_S
        while not (out.exists() and out.stat().st_size >= 16):
            if time.monotonic() > until:
                raise TimeoutError(f"{plan.container}: no tick; see {self._state}")
            with contextlib.suppress(BlockingIOError):
                select.select([worker], [], [], 0.001)
                worker.recv(1 << 18, socket.MSG_DONTWAIT)
        elapsed = milliseconds(out.read_bytes(), started)
        worker.close()
        self.runtime.destroy(plan.container, 1)
        self.wait(Destroyed, 1)
        return elapsed

    def connect(self, plan: LaunchPlan) -> socket.socket:
        worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker.connect(str(self.runtime.socket_path(plan.container, 1)))
        return worker

    def wait(self, kind: type, count: int) -> None:
        until = time.monotonic() + TIMEOUT_S * 3
        while count:
            if not select.select([self.runtime], [], [], until - time.monotonic())[0]:
                raise TimeoutError(f"no {kind.__name__}")
            for event in self.runtime.events():
                if isinstance(event, LaunchFailed):
                    raise RuntimeError(event.reason.message)
                count -= isinstance(event, kind)

    def crowd(self, size: int) -> tuple[float, float, list[float]]:
        """Return containers per second, seconds to destroy them all, and PSS in MiB of each AppWorker."""
        plans = [self.plan() for _ in range(size)]
        began = time.monotonic()
        for plan in plans:
            self.runtime.launch(plan)
        self.wait(Launched, size)
        created_s = time.monotonic() - began
        # Memory is measured when each AppWorker has started a program, as in production.
        workers = [self.connect(plan) for plan in plans]
        for plan, worker in zip(plans, workers, strict=True):
            worker.send(self.order(plan, "exec sleep 1000"))
        for worker in workers:
            worker.settimeout(TIMEOUT_S)
            while b'"running"' not in worker.recv(1 << 18):
                pass
        memory = [pss_mib(init.pid) for init in self.runtime.running()]
        for worker in workers:
            worker.close()
        began = time.monotonic()
        for plan in plans:
            self.runtime.destroy(plan.container, 1)
        self.wait(Destroyed, size)
        return size / created_s, time.monotonic() - began, memory

    def close(self) -> None:
        for init in self.runtime.running():
            self.runtime.destroy(init.container, init.incarnation)
            self.wait(Destroyed, 1)
        self.runtime.stop_launcher()
        self.runtime.close()


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"no Pss of {pid}")


def cgroup_enter_ms() -> float | None:
    """Return how many milliseconds a process takes to enter a cgroup on this host."""
    command = [sys.executable, "-m", "galaxy.container.host_probes", "cgroups"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    words = done.stdout.split()
    return int(words[2]) / 1000 if words[:2] == ["entered", "in"] else None


def contenders(folder: Path, tick: Path, ours: Galaxy) -> dict[str, Callable[[], float]]:
    """Return the contenders that can run here, by name; print why others cannot."""
    runs: dict[str, Callable[[], float]] = {
        "galaxy": lambda: ours.tick(Medium.TMPFS),
        "galaxy-disk": lambda: ours.tick(Medium.DISK),
        "galaxy-net": lambda: ours.tick(Medium.TMPFS, network="private"),
        "spawn": lambda: run_peer(["/bin/sh", "-c", f"exec {tick}"]),
    }
    hidden = HiddenUnified()
    place = write_bundle(folder, tick)
    serial = iter(range(1_000_000))
    name = f"gxbench{os.getpid()}"

    def oci(tool: str, enter: Callable[[], None] | None) -> Callable[[], float]:
        return lambda: run_peer([tool, "run", "--bundle", str(place), f"{name}-{next(serial)}"], enter)

    peers = {
        "bwrap": lambda: run_peer(bwrap(tick)),
        "crun": oci("crun", hidden.enter),
        "runc": oci("runc", None),
    }
    for peer, run in peers.items():
        if shutil.which(peer) is None:
            print(f"{peer}: not installed")
            continue
        try:
            run()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{peer}: does not run here: {error}")
            continue
        runs[peer] = run
    return runs


def measure(quick: bool) -> dict[str, Any]:
    rounds, crowd = (ROUNDS_QUICK, CROWD_QUICK) if quick else (ROUNDS, CROWD)
    with tempfile.TemporaryDirectory(prefix="gxbench-", dir="/opt") as name:
        folder = Path(name)
        folder.chmod(0o755)
        tools = folder / "tools"
        tools.mkdir()
        write_tick(tools / "tick")
        ours = Galaxy(folder, tools)
        try:
            runs = contenders(folder, tools / "tick", ours)
            times: dict[str, list[float]] = {each: [] for each in runs}
            for run in runs.values():
                run()  # Fill caches: templates of volumes, prepared roots.
            for _ in range(rounds):
                for each, run in runs.items():
                    times[each].append(run())
            rate, destroyed_s, memory = ours.crowd(crowd)
        finally:
            ours.close()
    return {
        "times": times,
        "rate": rate,
        "destroyed_s": destroyed_s,
        "memory": memory,
        "crowd": crowd,
        "rounds": rounds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 rounds and 20 containers")
    options = parser.parse_args()
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        print("bench/launch.py needs root and x86_64")
        print(
            json.dumps(
                {
                    "bench": "launch",
                    "ours": None,
                    "peers": {},
                    "unit": "ms",
                    "skipped": "needs root and x86_64",
                }
            )
        )
        return 0
    found = measure(options.quick)
    medians = {each: statistics.median(times) for each, times in found["times"].items()}
    heads = f"{'median':>9}{'fastest':>9}{'p90':>9}   ms, {found['rounds']} rounds"
    print(f"{'order to first instruction':<28}{heads}")
    for each, times in sorted(found["times"].items(), key=lambda item: medians[item[0]]):
        tenth = sorted(times)[int(len(times) * 0.9)]
        print(f"  {each:<26}{medians[each]:>9.2f}{min(times):>9.2f}{tenth:>9.2f}")
    pss = statistics.median(found["memory"])
    print(
        f"{found['crowd']} at once: {found['rate']:.0f} created/s, destroyed in {found['destroyed_s']:.2f} s"
    )
    print(f"AppWorker's memory: {pss:.2f} MiB PSS (median), {max(found['memory']):.2f} at most")
    peers = {each: round(medians[each], 2) for each in ("bwrap", "crun", "runc") if each in medians}
    print(
        json.dumps(
            {
                "bench": "launch",
                "ours": round(medians["galaxy"], 2),
                "peers": peers,
                "unit": "ms",
                "cgroup_enter_ms": cgroup_enter_ms(),
                "spawn": round(medians["spawn"], 2),
                "ours_disk": round(medians["galaxy-disk"], 2),
                "ours_private_network": round(medians["galaxy-net"], 2),
                "containers_per_s": round(found["rate"]),
                "at_once": found["crowd"],
                "destroy_all_s": round(found["destroyed_s"], 3),
                "pss_mib": round(pss, 2),
                "rounds": found["rounds"],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
