"""Memory and CPU at rest: every process of a cluster, and an agent with 50 containers.

``python bench/idle.py [--quick]``, as root. ``galaxy up`` starts a cluster in its own folder;
each process is measured over a window with one container, and again with 50. Memory is PSS (shared
pages are divided among the processes that share them), CPU is what the kernel's scheduler counted for
all threads (``/proc/PID/task/*/schedstat``), in per cent of one core. The peer is a plain Celery worker
(four threads, without gossip, mingle or any task) at rest on the same Redis over the same windows: the
cost of the transport alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from galaxy.client.login_urls import login_url

WINDOW_S, WINDOW_QUICK_S = 60.0, 10.0
SETTLE_S, SETTLE_QUICK_S = 15.0, 4.0
CROWD = 50
APPWORKER = "galaxy-appworke"
"""The name of an AppWorker's process; the kernel keeps 15 characters."""
AIM_MB, AIM_CPU = 60.0, 1.0
GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]

JOB = """\
name: {name}
deploy: {{replica: {replica}}}
pod:
  workspace: {{path: /home/work, size: 4M, medium: tmpfs}}
  tasks:
    - {{name: main, cpu: 10m, memory: 16M, start: exec sleep 1000000}}
"""

PEER = """\
import celery, sys
app = celery.Celery("peer", broker=sys.argv[1])
app.worker_main(["worker", "-P", "threads", "-c", "4", "-Q", "peer", "-n", "peer@bench", "-l", "error",
                 "--without-gossip", "--without-mingle"])
"""


class Cluster:
    """A cluster for this benchmark only, started and stopped with the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
        self._environ = kept | {"GALAXY_DIR": str(folder / "c"), "HOME": str(folder), "XDG_CONFIG_HOME": ""}

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*GALAXY, *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"galaxy {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def up(self) -> None:
        self.run("up", "--detach", "--dir", str(self.folder / "c"))

    def down(self) -> None:
        self.run("down", "--dir", str(self.folder / "c"))

    def job(self, name: str, replica: int) -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(JOB.format(name=name, replica=replica))
        self.run("job", "run", str(path))

    @property
    def url(self) -> str:
        facts = json.loads((self.folder / "c" / "cluster.json").read_text())
        return login_url(facts["url"], facts["secret"], "admin")

    def processes(self) -> dict[str, list[int]]:
        """Return the pids of every part. Only some children of the launcher are AppWorkers.

        The others (``launcher helper``) are warm processes and the forker. An AppWorker is recognized
        by its process name, so a helper is never counted as a container.
        """
        cluster = json.loads((self.folder / "c" / "cluster.json").read_text())
        found = {str(one["name"]): [int(one["pid"])] for one in cluster["processes"]}
        parents = {int(p.name): parent_of(p) for p in Path("/proc").glob("[0-9]*")}
        launchers = [pid for pid in parents if self._is_launcher(pid) and not self._is_launcher(parents[pid])]
        children = [pid for pid, parent in parents.items() if parent in launchers]
        found["launcher"] = launchers
        found["launcher helper"] = [pid for pid in children if name_of(pid) != APPWORKER]
        found["appworker"] = [pid for pid in children if name_of(pid) == APPWORKER]
        return found

    def _is_launcher(self, pid: int) -> bool:
        try:
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"galaxy.container.launcher.server" in command_line and bytes(self.folder) in command_line


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def pss_mb(pid: int) -> float:
    """Return a process' proportional share of memory, in MB of 10^6 bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib * 1024 / 1e6


def cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def measure(processes: dict[str, list[int]], window_s: float) -> dict[str, tuple[float, float, int]]:
    """Return, by part: median memory of one process (MB), median CPU (% of a core), their number."""
    every = [pid for pids in processes.values() for pid in pids]
    before, begin_s = {pid: cpu_ns(pid) for pid in every}, time.monotonic()
    time.sleep(window_s)
    passed_s = time.monotonic() - begin_s
    found = {}
    for part, pids in processes.items():
        if not pids:
            continue
        cpu = [(cpu_ns(pid) - before[pid]) / passed_s / 1e7 for pid in pids]
        found[part] = (statistics.median(map(pss_mb, pids)), statistics.median(cpu), len(pids))
    return found


def expect(found: dict[str, tuple[float, float, int]], containers: int) -> None:
    """Exit unless exactly ``containers`` AppWorkers were measured: the figures would be wrong."""
    count = found["appworker"][2] if "appworker" in found else 0
    if count != containers:
        raise SystemExit(f"measured {count} AppWorkers where {containers} containers were created")


def start_peer(url: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-c", PEER, url], stdin=quiet, stdout=quiet, stderr=quiet, cwd="/"
    )


def show(title: str, found: dict[str, tuple[float, float, int]]) -> None:
    print(f"\n{title}")
    print(f"  {'process':<22}{'PSS MB':>9}{'CPU %':>9}")
    for part, (memory, cpu, count) in found.items():
        name = part if count == 1 else f"{part} (median of {count})"
        print(f"  {name:<22}{memory:>9.1f}{cpu:>9.3f}")


def parts(found: dict[str, tuple[float, float, int]]) -> dict[str, Any]:
    return {part: {"pss_mb": round(m, 2), "cpu_percent": round(c, 3)} for part, (m, c, _) in found.items()}


def bench(quick: bool, folder: Path) -> dict[str, Any]:
    window_s = WINDOW_QUICK_S if quick else WINDOW_S
    settle_s = SETTLE_QUICK_S if quick else SETTLE_S
    cluster, peer = Cluster(folder), None
    try:
        cluster.up()
        peer = start_peer(cluster.url)
        cluster.job("one", 1)
        time.sleep(settle_s)
        one = measure(cluster.processes() | {"celery worker (peer)": [peer.pid]}, window_s)
        expect(one, 1)
        show(f"At rest, 1 container, over {window_s:g} s", one)
        cluster.job("many", CROWD - 1)
        time.sleep(settle_s)
        many = measure(cluster.processes() | {"celery worker (peer)": [peer.pid]}, window_s)
        expect(many, CROWD)
        show(f"At rest, {CROWD} containers, over {window_s:g} s", many)
    finally:
        if peer is not None:
            peer.terminate()
            try:
                peer.wait(15)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait(5)
        cluster.down()
    memory, cpu, _ = many["agent"]
    peer_memory, peer_cpu, _ = many.pop("celery worker (peer)")
    one.pop("celery worker (peer)")
    print(
        f"\nAgent with {CROWD} containers: {memory:.1f} MB of {AIM_MB:g}, {cpu:.2f} % of {AIM_CPU:g}"
        f" (a plain Celery worker: {peer_memory:.1f} MB, {peer_cpu:.2f} %)"
    )
    return {
        "bench": "idle",
        "ours": round(memory, 2),
        "peers": {"celery worker": round(peer_memory, 2)},
        "unit": "MB PSS of an agent with 50 containers",
        "ours_cpu_percent": round(cpu, 3),
        "peers_cpu_percent": {"celery worker": round(peer_cpu, 3)},
        "containers": CROWD,
        "aim": {"memory_mb": AIM_MB, "cpu_percent": AIM_CPU},
        "met": memory <= AIM_MB and cpu <= AIM_CPU,
        "with_1_container": parts(one),
        f"with_{CROWD}_containers": parts(many),
        "window_s": window_s,
        "quick": quick,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"windows of {WINDOW_QUICK_S:g} s")
    quick = parser.parse_args().quick
    folder = Path(tempfile.mkdtemp(prefix="galaxy-idle-"))
    try:
        result = bench(quick, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
