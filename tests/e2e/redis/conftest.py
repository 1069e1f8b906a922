"""A cluster on Redis with Sentinel and a standby of each leader, and clients that check its promises."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from galaxy.client import Galaxy
from galaxy.errors import Conflict, GalaxyError
from tests.e2e.cluster.conftest import Cluster, job_file, new_cluster
from tests.e2e.hosts.fleet import HostCluster
from tests.support.marks import needs_root
from tests.support.sentinel import SentinelSetup, running_sentinel_setup
from tests.support.waiting import until

__all__ = ["new_cluster"]

COUNTER = "i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.2; done"
ONCE = "echo started; sleep 0.5; echo finished"
ROOT = Path(__file__).parents[3]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent, timeout_s=300)


class SubmittingClient:
    """Submits one batch job after another, and repeats each under one key until it is accepted.

    ``accepted`` has the names and when each was accepted (monotonic clock), ``errors`` the texts of
    failed attempts, ``refused_s`` how long each failed attempt took.
    """

    def __init__(
        self, sdk: Callable[[float], AbstractContextManager[Galaxy]], folder: Path, prefix: str
    ) -> None:
        self.accepted: list[tuple[str, float]] = []
        self._submitted_s: list[float] = []
        self.errors: set[str] = set()
        self.refused_s: list[float] = []
        self._sdk = sdk
        self._folder = folder
        self._prefix = prefix
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SubmittingClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def await_accepted(self, since_s: float, timeout_s: float = 60) -> float:
        """Return how long after ``since_s`` (monotonic) the first job submitted after it was accepted."""
        until(
            f"a job is accepted again; errors: {self.errors}",
            lambda: self._submitted_s and self._submitted_s[-1] > since_s,
            timeout_s,
        )
        first = next(n for n, submitted_s in enumerate(self._submitted_s) if submitted_s > since_s)
        return self.accepted[first][1] - since_s

    def _run(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            name = f"{self._prefix}{number}"
            path = job_file(
                self._folder, name, type="batch", task={"cpu": "20m", "memory": "16M", "start": ONCE}
            )
            while not self._submit(name, path):
                if self._over.wait(0.05):
                    return
            self._over.wait(0.3)

    def _submit(self, name: str, path: Path) -> bool:
        began_s = time.monotonic()
        try:
            with self._sdk(3.0) as galaxy:
                galaxy.submit(path, key=name)
        except Conflict:
            raise
        except GalaxyError as error:
            self.errors.add(str(error))
            self.refused_s.append(time.monotonic() - began_s)
            return False
        self.accepted.append((name, time.monotonic()))
        self._submitted_s.append(began_s)
        return True


class Witnesses:
    """Programs that print growing numbers, which show whether they were restarted."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        job = job_file(folder, "witness", deploy={"replica": 3}, task={"cpu": "50m", "start": COUNTER})
        cluster.run("job", "run", str(job))
        self._containers = set(until("all have started", lambda: list(found := self._counts())[2:] and found))

    def check(self) -> None:
        """Assert that every program still counts: none stopped, restarted, or has a second copy."""
        before = {key: len(lines) for key, lines in self._counts().items()}
        until("all count", lambda: all(len(v) > before[k] for k, v in self._counts().items()))
        found = self._counts()
        assert set(found) == self._containers, "a container was replaced"
        for key, lines in found.items():
            assert len({pid for pid, _ in lines}) == 1, f"{key} was restarted"
            assert [number for _, number in lines] == list(range(1, len(lines) + 1)), (
                f"{key} skipped a number"
            )

    def _counts(self) -> dict[str, list[tuple[int, int]]]:
        found = {}
        for log in self._cluster.outputs("witness"):
            lines = (
                line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")
            )
            found[log.parent.name] = [(int(columns[0]), int(columns[1])) for columns in lines]
        return found


def check_accepted(cluster: Cluster | HostCluster, names: list[str]) -> None:
    """Assert that every accepted job finishes and ran exactly once."""
    assert names
    with cluster.sdk(10.0) as galaxy:

        def open_jobs() -> list[str]:
            known = {job.name: job.state for job in galaxy.jobs(all=True)}
            return [name for name in names if known.get(name) != "finished"]

        until("all accepted jobs have finished", lambda: not open_jobs(), timeout_s=90)
    for name in names:
        outputs = [log.read_text().split() for log in cluster.outputs(name)]
        assert outputs == [["started", "finished"]], f"{name} ran {len(outputs)} times"


def leaderships(cluster: Cluster) -> int:
    """Return how often any process of the cluster became leader."""
    logs = cluster.folder.glob("logs/*.log")
    return sum(log.read_text(errors="replace").count("event=leader.leading") for log in logs)


@pytest.fixture(scope="module")
def redises() -> Iterator[SentinelSetup]:
    with running_sentinel_setup() as redises:
        yield redises


@pytest.fixture(scope="module")
def cluster(redises: SentinelSetup, new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    """A cluster whose parts find Redis through Sentinel; a second ResMan and AppMaster stand by."""
    own = new_cluster()
    own.up("--redis", redises.url())
    standby = []
    for role in ("resman", "appmaster"):
        with open(own.folder / "logs" / f"{role}-standby.log", "wb") as log:
            standby.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "galaxy.cli.main", role, "--name", "second"],
                    env=own.environ | {"GALAXY_REDIS": redises.url(role)},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                )
            )  # fmt: skip
    yield own
    for process in standby:
        process.terminate()
    for process in standby:
        process.wait(60)
    own.down()
