"""How long from an order to the first instruction of the user's program: Galaxy, bwrap, runc, crun.

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
import ctypes
import json
import os
import platform
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galaxy.container.kernel import syscalls
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
TIMEOUT_S = 20.0
UID = 65534

TICK_X86_64 = bytes.fromhex(
    "b8e4000000"  # mov eax, 228 (clock_gettime)
    "bf01000000"  # mov edi, CLOCK_MONOTONIC
    "488d7424e0"  # lea rsi, [rsp-32]
    "0f05"  # syscall
    "b801000000"  # mov eax, 1 (write)
    "bf01000000"  # mov edi, 1
    "488d7424e0"  # lea rsi, [rsp-32]
    "ba10000000"  # mov edx, 16
    "0f05"  # syscall
    "b83c000000"  # mov eax, 60 (exit)
    "31ff"  # xor edi, edi
    "0f05"  # syscall
)


def write_tick(path: Path) -> None:
    """Write ``tick``: an ELF file with one loadable segment and no libraries."""
    base, header = 0x400000, 64 + 56
    size = header + len(TICK_X86_64)
    elf = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        b"\x7fELF",
        2,
        1,
        1,
        0,
        0,
        2,
        62,
        1,
        base + header,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    path.write_bytes(elf + segment + TICK_X86_64)
    path.chmod(0o755)


def milliseconds(data: bytes, started_ns: int) -> float:
    seconds, nanoseconds = struct.unpack("<qq", data[:16])
    return (seconds * 1_000_000_000 + nanoseconds - started_ns) / 1e6


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


def run_peer(command: list[str], enter: Callable[[], None] | None = None) -> float:
    """Run one peer and return the milliseconds until its program's first instruction."""
    started = time.monotonic_ns()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=enter,
    )
    if len(done.stdout) < 16:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return milliseconds(done.stdout, started)


def bwrap(tick: Path) -> list[str]:
    links = [
        part for name in ("bin", "sbin", "lib", "lib64") for part in ("--symlink", f"usr/{name}", f"/{name}")
    ]
    return [
        "bwrap",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-ipc",
        "--unshare-cgroup",
        "--ro-bind",
        "/usr",
        "/usr",
        *links,
        "--ro-bind",
        "/etc/alternatives",
        "/etc/alternatives",
        "--ro-bind",
        "/etc/ssl",
        "/etc/ssl",
        "--ro-bind",
        str(tick.parent),
        str(tick.parent),
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/home/galaxy",
        "--chdir",
        "/home/galaxy",
        "--cap-drop",
        "ALL",
        "--new-session",
        "/bin/sh",
        "-c",
        f"exec {tick}",
    ]


def bundle(folder: Path, tick: Path) -> Path:
    """Write an OCI bundle with the namespaces, limits, masks and mounts of Galaxy's containers."""
    root = folder / "bundle" / "rootfs"
    for name in ("usr", "proc", "dev", "tmp", "sys", "etc", "home/galaxy", str(tick.parent).lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    bind = ["bind", "ro", "nosuid", "nodev"]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": UID, "gid": UID},
            "cwd": "/home/galaxy",
            "noNewPrivileges": True,
            "args": ["/bin/sh", "-c", f"exec {tick}"],
            "env": ["PATH=/usr/bin:/bin"],
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
            },
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "nodev", "size=65536k"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "nodev", "noexec", "ro"],
            },
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": bind},
            {"destination": str(tick.parent), "type": "bind", "source": str(tick.parent), "options": bind},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=65536k"]},
            {
                "destination": "/home/galaxy",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["size=16384k", "mode=1777"],
            },
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount", "cgroup")],
            "resources": {
                "cpu": {"quota": 100000, "period": 100000, "shares": 1024},
                "memory": {"limit": 96 * MIB},
                "pids": {"limit": 96},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["unshare", "setns", "mount", "keyctl", "bpf"], "action": "SCMP_ACT_ERRNO"}
                ],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
    (folder / "bundle" / "config.json").write_text(json.dumps(config))
    return folder / "bundle"


class HiddenUnified:
    """A mount namespace without the v2 tree that is mounted beside v1 hierarchies: crun refuses both."""

    def __init__(self) -> None:
        self.fd = -1
        if os.path.ismount("/sys/fs/cgroup/unified"):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
                syscalls.unmount("/sys/fs/cgroup/unified")
                os.write(write, b"x")
                os.read(os.pipe()[0], 1)
            os.read(read, 1)
            self.fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def enter(self) -> None:
        if self.fd >= 0:
            ctypes.CDLL(None).setns(self.fd, 0)


def contenders(folder: Path, tick: Path, ours: Galaxy) -> dict[str, Callable[[], float]]:
    """Return the contenders that can run here, by name; print why others cannot."""
    runs: dict[str, Callable[[], float]] = {
        "galaxy": lambda: ours.tick(Medium.TMPFS),
        "galaxy-disk": lambda: ours.tick(Medium.DISK),
        "galaxy-net": lambda: ours.tick(Medium.TMPFS, network="private"),
        "spawn": lambda: run_peer(["/bin/sh", "-c", f"exec {tick}"]),
    }
    hidden = HiddenUnified()
    place = bundle(folder, tick)
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
