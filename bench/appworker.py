"""AppWorker alone: from ``run`` to its program's first output, and its memory.

A process that has imported everything forks AppWorkers, as the launcher does, but without namespaces and
cgroups. The order is already in the socket. The peer is a fork and exec of the same shell command from
the same process. ``pss`` is the median of all AppWorkers running at once.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import statistics
import sys
import tempfile
import time

from galaxy.model.base import encode
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.messages.pod import PodOrder
from galaxy.model.messages.worker import Order, TaskCgroup, WorkerConfig
from galaxy.worker_entry.main import run


def main() -> None:
    """Print both medians and the memory of one AppWorker, then one line of JSON."""
    rounds = 10 if "--quick" in sys.argv else 50
    gc.freeze()
    ours, bare, workers = [], [], []
    with tempfile.TemporaryDirectory(prefix="gb-") as root:
        try:
            for number in range(rounds):
                folder = f"{root}/{number}"
                os.mkdir(folder)
                # A new fifo for each run, because an earlier writer keeps its fifo open.
                for name in ("bare", "ours"):
                    os.mkfifo(f"{folder}/{name}")
                bare.append(_bare(f"{folder}/bare"))
                elapsed, pid, agent = _worker(folder, f"{folder}/ours")
                ours.append(elapsed)
                workers.append((pid, agent))
            pss_kib = statistics.median(_memory(pid, "Pss:") for pid, _ in workers)
            private_kib = statistics.median(_memory(pid, "Private_Dirty:") for pid, _ in workers)
        finally:
            for pid, agent in workers:
                agent.close()
                os.kill(pid, signal.SIGTERM)
            for pid, _ in workers:
                os.waitpid(pid, 0)
    ours_ms, bare_ms = statistics.median(ours), statistics.median(bare)
    print(f"run() to the program's first output   {ours_ms:8.2f} ms")
    print(f"  the fastest                          {min(ours):8.2f} ms")
    print(f"bare fork and exec of the same         {bare_ms:8.2f} ms")
    print(f"  the fastest                          {min(bare):8.2f} ms")
    print(f"one AppWorker among {rounds}: PSS          {pss_kib / 1024:8.2f} MiB")
    print(f"  private dirty pages of it            {private_kib / 1024:8.2f} MiB")
    result = {"bench": "appworker", "ours": round(ours_ms, 3), "peers": {"fork+exec": round(bare_ms, 3)}}
    print(json.dumps({**result, "unit": "ms", "pss_mib": round(pss_kib / 1024, 2), "workers": rounds}))


def _worker(folder: str, fifo: str) -> tuple[float, int, socket.socket]:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"{folder}/s")
    listening.listen(4)
    task = TaskSpec(
        name="main",
        cpu=CpuSpec(millicores=100),
        memory=MemorySpec(size=64 << 20),
        start=f"echo up > {fifo}; exec sleep 1000",
    )
    order = PodOrder(
        pod="b.0", incarnation=1, generation=1, job="b", index=0, revision=1, run=True, tasks=(task,)
    )
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent.connect(f"{folder}/s")
    agent.send(encode(Order(order=order)))
    log_fd = os.open(folder, os.O_RDONLY)
    config = WorkerConfig(
        container="b.0",
        incarnation=1,
        host="h",
        workspace=folder,
        listen_fd=listening.fileno(),
        log_fd=log_fd,
        isolated=False,
        tasks=(TaskCgroup(name="main"),),
    )
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    start_read, start_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(start_write, str(time.monotonic_ns()).encode())
        run(config)
    listening.close()
    os.close(log_fd)
    elapsed = _first_output(reader, int(os.read(start_read, 64)))
    for fd in (start_read, start_write):
        os.close(fd)
    return elapsed, pid, agent


def _bare(fifo: str) -> float:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    since = time.monotonic_ns()
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", f"echo up > {fifo}"])
    elapsed = _first_output(reader, since)
    os.waitpid(pid, 0)
    return elapsed


def _first_output(reader: int, since_ns: int) -> float:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.poll(10_000)
    os.read(reader, 16)
    elapsed = (time.monotonic_ns() - since_ns) / 1e6
    os.close(reader)
    return elapsed


def _memory(pid: int, field: str) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    main()
