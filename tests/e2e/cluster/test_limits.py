"""Limits of a real job are enforced at the requested value."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import until

from .conftest import Cluster, job_file


def test_program_over_its_memory_limit_is_shown_as_oom_killed(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("greedy")
    start = "exec python3 -c 'x = bytearray(200 << 20); import time; time.sleep(60)'"
    path = job_file(tmp_path, "greedy", task={"start": start, "restart": "never"})
    cluster.run("job", "run", str(path), status=None)
    pod = until("a failed pod", lambda: [p for p in cluster.pods("greedy") if p.state == "failed"])[0]
    assert pod.tasks[0].last_exit.oom is True
    assert "OOM-killed" in cluster.run("job", "show", "greedy").stdout


def test_fork_bomb_is_stopped_at_its_pids_limit(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("bomb")
    start = (
        "exec python3 -c '\n"
        "import os, time\n"
        "forks = 0\n"
        "try:\n"
        "    while forks < 5000:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(600)\n"
        "            os._exit(0)\n"
        "        forks += 1\n"
        "except BlockingIOError:\n"
        '    print("stopped at", forks, flush=True)\n'
        "time.sleep(600)'"
    )
    cluster.run("job", "run", str(job_file(tmp_path, "bomb", task={"start": start, "pids": 30})))
    line = until("its output", lambda: cluster.run("logs", "bomb").stdout.strip())
    assert "stopped at" in line
    assert int(line.split()[-1]) < 30


def test_busy_loop_stays_within_five_percent_of_its_quota(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("busy")
    start = "exec python3 -c 'while True: pass'"
    cluster.run("job", "run", str(job_file(tmp_path, "busy", task={"start": start, "cpu": "200m"})))
    pid = cluster.pods("busy")[0].pid
    child = until("its program", lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split())[0]

    def cpu_s() -> float:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    until("it has started", lambda: cpu_s() > 0.1)
    used, began = cpu_s(), time.monotonic()
    # Five seconds of its quota, however long this machine takes to grant them.
    until("it has used five seconds of its quota", lambda: cpu_s() - used >= 0.2 * 5)
    share = (cpu_s() - used) / (time.monotonic() - began)
    assert share <= 0.2 * 1.05 + 0.005, f"{share:.3f} of a core"


def test_program_that_fills_its_volumes_gets_enospc_at_their_size(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("filler")
    start = (
        "exec python3 -c '\n"
        "import errno, os, time\n"
        'for place in ("/home/work", "/home/data"):\n'
        "    written = 0\n"
        '    with open(place + "/fill", "wb", buffering=0) as file:\n'
        "        try:\n"
        "            while written < 200 << 20:\n"
        "                written += file.write(bytes(65536))\n"
        "        except OSError as error:\n"
        "            print(place, errno.errorcode[error.errno], written, flush=True)\n"
        "time.sleep(600)'"
    )
    pod = {"volumes": [{"path": "/home/data", "size": "8M", "medium": "tmpfs"}]}
    cluster.run("job", "run", str(job_file(tmp_path, "filler", task={"start": start}, pod=pod)))
    lines = until("both volumes full", lambda: _lines(cluster, "filler", 2))
    sizes = {line.split()[0]: line.split()[1:] for line in lines}
    assert sizes["/home/work"][0] == sizes["/home/data"][0] == "ENOSPC"
    assert 8 << 20 < int(sizes["/home/work"][1]) <= 16 << 20
    assert 7 << 20 < int(sizes["/home/data"][1]) <= 8 << 20


def _lines(cluster: Cluster, job: str, count: int) -> list[str]:
    lines = cluster.run("logs", job).stdout.strip().splitlines()
    found = [line[line.index("/home") :] for line in lines if "/home" in line]
    return found if len(found) >= count else []
