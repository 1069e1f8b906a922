"""Chaos: parts are killed and paused past their leases at random, while programs count and batches run.

GALAXY_TEST_CHAOS_S says for how long (default 60 s), GALAXY_TEST_CHAOS_SEED in which order.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError

from .conftest import Cluster, job_file, until

LASTS_S = float(os.environ.get("GALAXY_TEST_CHAOS_S", "60"))
SEED = int(os.environ.get("GALAXY_TEST_CHAOS_SEED", "1"))
PARTS = ("agent", "resman", "appmaster", "server", "launcher")
PAUSE_S = 4.0
"""Twice a lease."""
WHOLE_S = 30.0
"""How long it may take until all is as wanted; the supervisor's back-off after many deaths included."""

COUNTS = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.2; done"
ONCE = "echo began; sleep 1; echo done"


@pytest.fixture
def own(new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    """A cluster that nobody else needs."""
    cluster = new_cluster()
    cluster.up("--no-web")
    yield cluster
    cluster.down()


def pids(cluster: Cluster, part: str) -> list[int]:
    """Return the pids of one part; the launcher is none that the supervisor knows.

    First processes of containers are forks of it: same command line, other PID namespaces.
    """
    if part != "launcher":
        return [pid for pid in (cluster.pid(part),) if pid]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        ours = any(str(cluster.folder) in word for word in words)
        if ours and "galaxy.container.launcher" in words and _is_of_the_host(process.pid):
            found.append(process.pid)
    return found


def _is_of_the_host(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(
            "/proc/self/ns/pid"
        )
    except (ProcessLookupError, FileNotFoundError):
        return False


def strike(cluster: Cluster, chance: random.Random) -> str:
    """Kill or pause one part, or kill all of them; return what was done."""
    kind = chance.choice(("kill", "kill", "pause", "all"))
    parts = PARTS if kind == "all" else (chance.choice(PARTS),)
    struck = [pid for part in parts for pid in pids(cluster, part)]
    for pid in struck:
        _signal(pid, signal.SIGSTOP if kind == "pause" else signal.SIGKILL)
    if kind == "pause":
        time.sleep(PAUSE_S)  # What is tested is that it sleeps past its lease.
        for pid in struck:
            _signal(pid, signal.SIGCONT)
    return f"{kind} {' '.join(parts)}"


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def submit(cluster: Cluster, path: Path) -> bool:
    """Submit a batch job, insisting for a while; return whether it was accepted."""
    try:
        with Galaxy(dir=cluster.folder, timeout_s=5) as galaxy:
            galaxy.submit(path, key=path.stem)
    except GalaxyError:
        return False
    return True


def counts(cluster: Cluster, job: str) -> dict[str, list[tuple[int, int]]]:
    """Return, by life of a container, what its program has counted: (its pid, the number)."""
    found = {}
    for log in sorted(cluster.folder.glob(f"agent/*/logs/{job}-*/*.stdout")):
        lines = (line.split() for line in log.read_text().splitlines())
        found[log.parent.name] = [(int(words[0]), int(words[1])) for words in lines]
    return found


def settled(cluster: Cluster, job: str) -> bool:
    try:
        return cluster.show(job).settled
    except GalaxyError:
        return False


@pytest.mark.timeout(max(300, int(LASTS_S * 3)))
def test_whatever_dies_no_count_resets_no_copy_runs_and_nothing_accepted_is_lost(
    own: Cluster, tmp_path: Path
) -> None:
    job = job_file(tmp_path, "witness", deploy={"replica": 3}, task={"cpu": "50m", "start": COUNTS})
    own.run("job", "run", str(job))
    lives = set(counts(own, "witness"))
    chance = random.Random(SEED)
    story, accepted = [], []
    until_s = time.monotonic() + LASTS_S
    while time.monotonic() < until_s:
        story.append(strike(own, chance))
        task = {"cpu": "50m", "memory": "16M", "start": ONCE}
        batch = job_file(tmp_path, f"batch{len(story)}", type="batch", task=task)
        if submit(own, batch):
            accepted.append(batch.stem)
        time.sleep(chance.uniform(0.0, 2.0))
    print(f"seed {SEED}: {len(story)} strikes, {len(accepted)} jobs accepted: {'; '.join(story)}")
    for name in (*accepted, "witness"):
        until(f"{name} is as wanted", lambda name=name: settled(own, name), timeout_s=WHOLE_S)
    for name in accepted:
        assert own.show(name).summary.state == "finished", name
        logs = sorted(own.folder.glob(f"agent/*/logs/{name}-*/*.stdout"))
        events = "\n".join(f"{e.at_s:.2f} {e.subject} {e.kind} {e.text}" for e in own.show(name).events)
        said = [log.read_text().split() for log in logs]
        assert said == [["began", "done"]], f"{name} after {story}\n{events}\n{own.logs()}"
    found = counts(own, "witness")
    assert set(found) == lives, "a container was replaced"
    for life, lines in found.items():
        assert len({pid for pid, _ in lines}) == 1, f"{life} was started again"
        assert [number for _, number in lines] == list(range(1, len(lines) + 1)), f"{life} missed a beat"
        assert len(lines) > LASTS_S
