"""Real clusters, started and stopped with the real command line.

Most tests share one cluster per test process (``cluster``). They use job names of their own and
remove their jobs at the end (``jobs``). Tests that start and stop clusters create their own
(``new_cluster``). Each cluster has its own folder, ports, cgroup roots and kernel users, so that
test processes do not interfere with each other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from galaxy.client import Galaxy
from galaxy.client.login_urls import login_url
from galaxy.model.api.views import AgentView, EndpointView, JobView, PodView
from tests.support.marks import needs_root
from tests.support.redis_server import free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
HELLO = ROOT / "examples" / "hello" / "hello.py"
GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests as needing root; one of them drops it itself."""
    needs_root(items, Path(__file__).parent, timeout_s=300)


class Cluster:
    """One cluster's folder, and the command line directed at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.parent / f"{folder.name}-home"
        self.home.mkdir(exist_ok=True)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its commands: none of the caller's GALAXY_ variables."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
        return kept | {"GALAXY_DIR": str(self.folder), "HOME": str(self.home), "XDG_CONFIG_HOME": ""}

    def run(
        self, *arguments: str, status: int | None = 0, timeout_s: float = 100, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``galaxy ARGUMENTS``; assert that it exits with ``status``, unless that is None."""
        done = subprocess.run(
            [*GALAXY, *arguments],
            env=self.environ | environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_s,
        )  # fmt: skip
        assert status is None or done.returncode == status, (
            f"galaxy {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n"
            + self.log_tails()
        )
        return done

    def await_answers(self) -> None:
        """Return when AppMaster answers. After a restart it first waits for its predecessor's lease."""
        until("AppMaster answers", lambda: self.run("status", status=None).returncode == 0, 60)

    def json(self, *arguments: str) -> Any:
        """Run a command with ``-o json`` and return the decoded output."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def sdk(self, timeout_s: float = 5.0) -> Galaxy:
        """Return a new client."""
        return Galaxy(dir=self.folder, timeout_s=timeout_s)

    def outputs(self, job: str) -> list[Path]:
        """Return the standard outputs of ``job``, one file for each program that was started."""
        return sorted(self.folder.glob(f"agent/*/logs/{job}-*/*.stdout"))

    def show(self, job: str) -> JobView:
        """Return the view of a job."""
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.job(job)

    def pods(self, job: str) -> list[PodView]:
        """Return the views of a job's pods."""
        return list(self.show(job).pods)

    def endpoints(self, service: str) -> list[EndpointView]:
        """Return what discovery answers."""
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.discover(service)

    def agents(self) -> list[AgentView]:
        """Return the views of all agents."""
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.agents()

    def up(self, *options: str, status: int | None = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``galaxy up --detach`` with a Flower port that no other test process uses."""
        port = () if "--no-web" in options else ("--web-port", str(free_port()))
        return self.run(
            "up", "--detach", "--dir", str(self.folder), *port, *options, status=status, **environ
        )

    def down(self) -> subprocess.CompletedProcess[str]:
        """Run ``galaxy down``."""
        return self.run("down", "--dir", str(self.folder), timeout_s=120)

    def file(self) -> dict[str, Any]:
        """Return cluster.json, which exists while the cluster runs."""
        return dict(json.loads((self.folder / "cluster.json").read_text()))

    def admin_url(self) -> str:
        """Return the URL of the Redis login that is allowed everything."""
        return login_url(self.file()["url"], self.file()["secret"], "admin")

    def pid(self, part: str) -> int:
        """Return a part's pid from cluster.json; 0 while it does not run."""
        return next((int(p["pid"]) for p in self.file()["processes"] if p["name"].startswith(part)), 0)

    def plan(self) -> dict[str, Any]:
        """Return plan.json, which outlives the cluster's processes."""
        return dict(json.loads((self.folder / "plan.json").read_text()))

    def cgroup_roots(self) -> list[str]:
        """Return the cgroup roots of its agents."""
        return [agent["cgroup_root"] for agent in self.plan()["agents"]]

    def log_tails(self) -> str:
        """Return the end of every log, for a failure's message."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        tails = {log.name: log.read_text(errors="replace").splitlines()[-15:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in tails.items())


class NewCluster:
    """Creates clusters in new folders."""

    def __init__(self) -> None:
        self._clusters: list[Cluster] = []

    def __call__(self) -> Cluster:
        """Return a cluster that is not up yet, in a new folder."""
        self._clusters.append(Cluster(Path(tempfile.mkdtemp(prefix="galaxy-e2e-")).resolve() / "c"))
        return self._clusters[-1]

    def log_tails(self) -> str:
        """Return the log tails of the running clusters, for a failure's message."""
        running = [one for one in self._clusters if (one.folder / "cluster.json").exists()]
        return "\n".join(f"==== {one.folder}\n{one.log_tails()}" for one in running)

    def remove_all(self) -> None:
        """End the clusters that tests left running, and remove all folders."""
        for cluster in self._clusters:
            if (cluster.folder / "plan.json").exists() and leftovers_of(
                cluster.folder, cluster.cgroup_roots()
            ):
                cluster.run("down", "--dir", str(cluster.folder), status=None, timeout_s=120)
            shutil.rmtree(cluster.folder.parent, ignore_errors=True)


def leftovers_of(folder: Path, cgroup_roots: list[str]) -> list[str]:
    """Return the mounts, loop devices, cgroups and processes of a cluster, from /proc and /sys."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    loops = {file.parts[3]: _text(file) for file in Path("/sys/block").glob("loop*/loop/backing_file")}
    tops = [top for root in cgroup_roots for top in cgroups_at(root)]
    found = [f"mount {line.split()[4]}" for line in mounts if f" {folder}/" in line]
    found += [f"loop {name}" for name, file in loops.items() if file.startswith(f"{folder}/")]
    found += [f"cgroup {top}" for top in tops]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            text = command + (process / "environ").read_bytes()
            cgroups = (process / "cgroup").read_text()
        except OSError:
            continue
        if int(process.name) == os.getpid() or not command:
            continue
        ours = bytes(folder) + b"/" in text or bytes(folder) + b"\0" in text
        if ours or any(f"/{root}/" in cgroups for root in cgroup_roots):
            found.append(f"process {process.name} {text[:80]!r}")
    return found


def _text(file: Path) -> str:
    """Return the text of a file in /sys; "" if its device has just disappeared."""
    try:
        return file.read_text()
    except OSError:
        return ""


def fetched(url: str, timeout_s: float = 15) -> str:
    """Return a page, or "" while no server answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def cgroups_at(path: str) -> list[Path]:
    """Return the cgroups at that path (a glob) in every hierarchy: v1's, the v2 tree beside, or v2 alone."""
    top = Path("/sys/fs/cgroup")
    return [*top.glob(path), *top.glob(f"*/{path}")]


def job_file(folder: Path, name: str, **job: Any) -> Path:
    """Write a job file with one small task. ``task`` and ``pod`` change fields of these."""
    task = {"cpu": "100m", "memory": "64M", "start": "exec sleep 1000"} | job.pop("task", {})
    pod = {"workspace": {"path": "/home/work", "size": "16M"}, "tasks": [task]} | job.pop("pod", {})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "pod": pod, **job}))
    return path


def hello_package(folder: Path, version: str) -> Path:
    """Build a package of the example with ``version``."""
    source = folder / f"hello-{version}"
    source.mkdir(exist_ok=True)
    text = HELLO.read_text().replace('VERSION = "1.0.0"', f'VERSION = "{version}"')
    (source / "hello.py").write_text(text)
    path = folder / f"hello-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source / "hello.py", arcname="hello.py")
    return path


def hello_job(folder: Path, name: str, version: str, **deploy: Any) -> Path:
    """Write a job file that runs the example as service ``name``."""
    package = hello_package(folder, version)
    return job_file(
        folder,
        name,
        deploy={"replica": 3, "step": 1, "stop_timeout": "10s", "drain": "2s"} | deploy,
        task={
            "cpu": "200m",
            "ports": [{"name": "http", "port": "dynamic"}],
            "package": {"source": str(package), "version": version},
            "start": "exec python3 hello.py",
            "health": {"type": "http", "port": "http", "path": "/health", "interval": "500ms"},
            "services": [{"name": name, "port": "http"}],
        },
    )


@pytest.fixture(scope="session")
def new_cluster() -> Iterator[NewCluster]:
    """Create clusters; those that tests left running are stopped and removed at the end of the session."""
    factory = NewCluster()
    yield factory
    factory.remove_all()


@pytest.fixture(scope="session")
def web_cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    """A second shared cluster, with Flower and log level debug."""
    shared = new_cluster()
    shared.up(GALAXY_LOG_LEVEL="debug")
    yield shared
    shared.down()


@pytest.fixture(scope="session")
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    """The cluster that most tests share: one agent, no Flower."""
    shared = new_cluster()
    shared.up("--no-web")
    yield shared
    shared.down()


@pytest.fixture
def jobs(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """Register names of jobs to remove from the shared cluster after the test."""
    names: list[str] = []
    yield names.append
    for name in names:
        cluster.run("job", "remove", "--yes", name, status=None)
