"""How much a container that uses up a resource ("flood") slows down an HTTP service beside it.

``python bench/neighbours.py [--quick]``, as root. The service and the flood are containers with
AppWorkers, created by a real launcher. The peer is the same flood as a plain process under ``nice -n 19``
of an unprivileged user, with only the limits that keep the machine usable: rlimits of processes, address
space and file size. Calm and flooded are measured in many short turns in alternating order, so that other
load on the machine affects both. Printed are medians and 99th percentiles in milliseconds, and the
slowdown: the median over the turns of flooded divided by calm, with its quartiles. The row ``idle`` shows
how much of that is noise. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from galaxy.container.kernel.processes import start_ticks
from galaxy.units import MIB
from tests.support.floods import FLOODS
from tests.support.hostile import NOBODY, ContainerHost, Neighbour, neighbour, quoted

ROUNDS, ROUNDS_QUICK = 9, 2
REQUESTS = 500
WARM_UP_S = 0.5
PEER_PROCESSES = 64
PEER_UID = NOBODY - 7
"""A user only for the peer, because RLIMIT_NPROC counts all processes of a user."""
AIM_SLOWDOWN = 1.10
IDLE = "idle"
PROGRAMS = {IDLE: "import time\nprint('flooding', flush=True)\ntime.sleep(1000)"} | dict(
    sorted(FLOODS.items())
)
"""The idle program shows how much of a difference is noise of the machine."""
ROTATED = """
import os
out = os.open("../out", os.O_WRONLY)
while data := os.read(0, 65536):
    if os.lseek(out, 0, os.SEEK_CUR) > 10_000_000:
        os.ftruncate(out, 0)
        os.lseek(out, 0, os.SEEK_SET)
    os.write(out, data)
"""


class Plain:
    """A flood as plain niced processes; ``end`` kills all of them."""

    def __init__(self, name: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gxn-"))
        os.chown(self._folder, PEER_UID, PEER_UID)
        self._size_mount()
        work = self._folder / "work"
        work.mkdir()
        (self._folder / "out").touch()  # Now, because the flood may fill the disk.
        for path in (work, self._folder / "out"):
            os.chown(path, PEER_UID, PEER_UID)
        drain = self._start(ROTATED, work, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert drain.stdin is not None
        with drain.stdin as sink:  # Before the flood, which may use up all processes.
            flood = self._start(PROGRAMS[name], work, stdin=subprocess.DEVNULL, stdout=sink)
        self._processes = (drain, flood)
        try:
            self._await_output()
        except BaseException:
            self.end()
            raise

    def _start(self, program: str, work: Path, *, stdin: Any, stdout: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/usr/bin/nice", "-n", "19", "/bin/sh", "-c", quoted(program)],
            cwd=work,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT if stdin == subprocess.DEVNULL else subprocess.DEVNULL,
            user=PEER_UID,
            group=PEER_UID,
            extra_groups=[],
            start_new_session=True,
            preexec_fn=_set_limits,
        )

    def _await_output(self) -> None:
        end_s = time.monotonic() + 20
        while not (self._folder / "out").stat().st_size:
            if time.monotonic() > end_s:
                raise SystemExit("the peer does not start")
            time.sleep(0.01)

    def _size_mount(self) -> None:
        options = f"size=64m,nr_inodes=16384,uid={PEER_UID}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)], check=True)

    def end(self) -> None:
        """Kill until no process of the peer's user is left, then remove its directory."""
        end_s = time.monotonic() + 20
        while left := _processes_of(PEER_UID):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            if time.monotonic() > end_s:
                raise SystemExit(f"the peer's processes {left} do not end")
        subprocess.run(["umount", "-l", str(self._folder)], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _set_limits() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (PEER_PROCESSES, PEER_PROCESSES))
    resource.setrlimit(resource.RLIMIT_AS, (512 * MIB, 512 * MIB))
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * MIB, 256 * MIB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _processes_of(uid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == uid and start_ticks(int(process.name)):
                found.append(int(process.name))
    return found


def contained(host: ContainerHost, name: str) -> Callable[[], None]:
    """Start a flood in a container; return the function that ends it."""
    container = host.container(name, start=quoted(PROGRAMS[name]))
    container.await_log("flooding")
    return container.destroy


def plain(_host: ContainerHost, name: str) -> Callable[[], None]:
    return Plain(name).end


def measure(
    host: ContainerHost,
    beside: Neighbour,
    name: str,
    begin: Callable[[ContainerHost, str], Callable[[], None]],
    rounds: int,
) -> dict[str, float]:
    """Return medians and percentiles of the neighbour's answer times, calm and beside one flood."""
    calm: list[float] = []
    flooded: list[float] = []
    slowdowns = []
    for number in range(rounds):
        calm_s = beside.times_s(REQUESTS) if number % 2 == 0 else []
        flooded_s = _flooded(host, beside, name, begin)
        calm_s = calm_s or beside.times_s(REQUESTS)
        calm += calm_s
        flooded += flooded_s
        slowdowns.append(statistics.median(flooded_s) / statistics.median(calm_s))
    low, middle, high = statistics.quantiles(slowdowns, n=4, method="inclusive")
    return {
        "calm_ms": round(statistics.median(calm) * 1e3, 3),
        "flooded_ms": round(statistics.median(flooded) * 1e3, 3),
        "p99_calm_ms": round(sorted(calm)[int(len(calm) * 0.99)] * 1e3, 3),
        "p99_flooded_ms": round(sorted(flooded)[int(len(flooded) * 0.99)] * 1e3, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "slowdown": round(middle, 3),
    }


def _flooded(
    host: ContainerHost,
    beside: Neighbour,
    name: str,
    begin: Callable[[ContainerHost, str], Callable[[], None]],
) -> list[float]:
    end = begin(host, name)
    try:
        time.sleep(WARM_UP_S)
        return beside.times_s(REQUESTS)
    finally:
        end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of each")
    quick = parser.parse_args().quick
    if os.geteuid() != 0:
        raise SystemExit("this benchmark creates containers with limits, and needs root")
    rounds = ROUNDS_QUICK if quick else ROUNDS
    figures: dict[str, dict[str, dict[str, float]]] = {}
    host = ContainerHost()
    try:
        beside = neighbour(host)
        print(
            f"{'flood':12} {'':9} {'calm':>9} {'flooded':>9} {'p99 calm':>9} {'p99 fl.':>9}"
            f" {'quarter':>9} {'to':>9} {'slowdown':>9}"
        )
        for name in PROGRAMS:
            figures[name] = {}
            for who, begin in (("container", contained), ("nice", plain)):
                one = figures[name][who] = measure(host, beside, name, begin, rounds)
                cells = " ".join(f"{one[key]:9.2f}" for key in one)
                print(f"{name:12} {who:9} {cells}", flush=True)
    finally:
        host.close()
    worst = max(FLOODS, key=lambda name: figures[name]["container"]["slowdown"])
    slowest = figures[worst]["container"]["slowdown"]
    noise = figures[IDLE]["container"]
    print(
        f"worst in a container: {worst}, x{slowest:.2f} (aim: at most x{AIM_SLOWDOWN:.2f});"
        f" beside an idle one x{noise['slowdown']:.2f}, half of the turns"
        f" x{noise['low']:.2f} to x{noise['high']:.2f}"
    )
    about = {"cpus": os.cpu_count(), "kernel": platform.release(), "load": round(os.getloadavg()[0], 1)}
    line = {"bench": "neighbours", "quick": quick, "worst": worst, "slowdown": slowest, "floods": figures}
    print(json.dumps(line | about))


if __name__ == "__main__":
    main()
