"""Time from submit to a running program on an idle one-host cluster, next to its lower bound.

``python bench/submit.py [--quick]``, as root for real containers. Galaxy: ``Galaxy.submit`` of a job of
one pod until AppMaster reports its program as running (placed, isolated, limited, started, reported).
The peer, in turn on the same Redis: a plain Celery worker that starts the same program with
``subprocess`` and answers with its pid. It chooses no host, isolates nothing, limits nothing and stores
nothing: it is the lower bound of one broker round trip and one process start, not a competitor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from galaxy.client import Galaxy
from galaxy.client.cluster_file import read_cluster
from galaxy.client.login_urls import login_url

ROUNDS, ROUNDS_QUICK = 30, 8
WARM_UP = 2
TIMEOUT_S = 30.0
PROGRAM = "exec sleep 1000"
PEER_TASK = "bench.start"
PEER_QUEUE = "bench-peer"
GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help=f"{ROUNDS_QUICK} rounds instead of {ROUNDS}")
    options.add_argument("--peer-worker", metavar="URL", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.peer_worker:
        run_peer(given.peer_worker)
        return
    rounds = ROUNDS_QUICK if given.quick else ROUNDS
    with cluster() as (galaxy, url), peer(url) as ask_peer:
        ours, accepted, floor = measure(galaxy, ask_peer, rounds)
    rows = (
        ("submitted to running", ours),
        ("  of that, to accepted", accepted),
        ("floor: Celery + subprocess", floor),
    )
    print(f"{'':<28}{'median':>9}{'p90':>9}{'best':>9}   ms, {rounds} rounds")
    for name, times in rows:
        print(f"{name:<28}{median(times):>9.1f}{p90(times):>9.1f}{min(times):>9.1f}")
    print(
        json.dumps(
            {
                "bench": "submit",
                "ours": round(median(ours), 1),
                "peers": {"celery round trip + subprocess (floor)": round(median(floor), 1)},
                "unit": "ms, median",
                "p90": round(p90(ours), 1),
                "accepted": round(median(accepted), 1),
                "rounds": rounds,
                "aim": 150,
            }
        )
    )


def measure(
    galaxy: Galaxy, ask_peer: Callable[[], int], rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Return milliseconds of each round: to running, to accepted, and of the peer."""
    ours, accepted, floor = [], [], []
    for number in range(rounds + WARM_UP):
        began = time.perf_counter()
        pid = ask_peer()
        floor.append((time.perf_counter() - began) * 1000)
        os.kill(pid, 9)
        name = f"bench-{number}"
        began = time.perf_counter()
        job = galaxy.submit(spec(name)).job
        accepted.append((time.perf_counter() - began) * 1000)
        view = galaxy.wait(job, timeout_s=TIMEOUT_S, until=lambda view: view.summary.running == 1)
        ours.append((time.perf_counter() - began) * 1000)
        assert view.summary.running == 1, view.summary
        galaxy.remove(job)
        galaxy.wait(job, timeout_s=TIMEOUT_S, until=lambda view: view.summary.state == "removed")
    return ours[WARM_UP:], accepted[WARM_UP:], floor[WARM_UP:]


def spec(name: str) -> dict[str, Any]:
    task = {"cpu": "100m", "memory": "32M", "start": PROGRAM}
    return {"name": name, "deploy": {"stop_timeout": 0}, "pod": {"workspace": "16M", "tasks": [task]}}


def median(times: list[float]) -> float:
    return statistics.median(times)


def p90(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, round(len(times) * 0.9))]


@contextmanager
def cluster() -> Iterator[tuple[Galaxy, str]]:
    """A cluster for this benchmark only."""
    folder = Path(tempfile.mkdtemp(prefix="galaxy-bench-")).resolve()
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    try:
        command = [*GALAXY, "up", "--detach", "--no-web", "--dir", str(folder / "c")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
        found = read_cluster(folder / "c")
        assert found is not None
        with Galaxy(dir=folder / "c") as galaxy:
            yield galaxy, login_url(found.url, found.secret, "admin")
    finally:
        command = [*GALAXY, "down", "--dir", str(folder / "c")]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environ)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def peer(url: str) -> Iterator[Callable[[], int]]:
    """A plain Celery worker, and a function that makes it start the program."""
    worker = subprocess.Popen(
        [sys.executable, __file__, "--peer-worker", url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    app = peer_app(url)

    def ask() -> int:
        return int(app.send_task(PEER_TASK, queue=PEER_QUEUE).get(timeout=TIMEOUT_S))

    try:
        os.kill(ask(), 9)
        yield ask
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_S)


def peer_app(url: str) -> Celery:
    app = Celery("peer", broker=url, backend=url)
    app.conf.update(task_default_queue=PEER_QUEUE, worker_send_task_events=False)
    return app


def run_peer(url: str) -> None:
    app = peer_app(url)

    @app.task(name=PEER_TASK)
    def start() -> int:
        return subprocess.Popen(["/bin/sh", "-c", PROGRAM], start_new_session=True).pid

    app.worker_main(
        ["worker", "-P", "threads", "-c", "2", "-Q", PEER_QUEUE, "--without-gossip", "--without-mingle"]
    )


if __name__ == "__main__":
    main()
