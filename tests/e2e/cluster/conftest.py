"""A real cluster, started and ended by the real command line."""

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
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
HELLO = ROOT / "examples" / "hello" / "hello.py"
GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need root, except where a test gives it up itself."""
    needs_root(items, Path(__file__).parent, timeout_s=300)


class Cluster:
    """One cluster's folder, and the command line pointed at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.parent / f"{folder.name}-home"
        self.home.mkdir(exist_ok=True)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
        return kept | {"GALAXY_DIR": str(self.folder), "HOME": str(self.home), "XDG_CONFIG_HOME": ""}

    def run(
        self, *words: str, status: int | None = 0, timeout_s: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run ``galaxy WORDS``; it must exit with ``status``, unless that is None."""
        done = subprocess.run(
            [*GALAXY, *words],
            env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert status is None or done.returncode == status, (
            f"galaxy {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n"
            + self.logs()
        )
        return done

    def await_answers(self) -> None:
        """Return when AppMaster answers: one that was just started does so after its lease has come."""
        until("AppMaster answers", lambda: self.run("status", status=None).returncode == 0, 60)

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "-o", "json").stdout)

    def sdk(self, timeout_s: float = 5.0) -> Galaxy:
        return Galaxy(dir=self.folder, timeout_s=timeout_s)

    def outputs(self, job: str) -> list[Path]:
        """Return what programs of ``job`` wrote, a file for each that was begun."""
        return sorted(self.folder.glob(f"agent/*/logs/{job}-*/*.stdout"))

    def show(self, job: str) -> JobView:
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.job(job)

    def pods(self, job: str) -> list[PodView]:
        return list(self.show(job).pods)

    def endpoints(self, service: str) -> list[EndpointView]:
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.discover(service)

    def agents(self) -> list[AgentView]:
        with Galaxy(dir=self.folder) as galaxy:
            return galaxy.agents()

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--detach", "--dir", str(self.folder), *options)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.run("down", "--dir", str(self.folder), timeout_s=120)

    def file(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "cluster.json").read_text()))

    def admin_url(self) -> str:
        """Return the URL of the login that may do everything."""
        return login_url(self.file()["url"], self.file()["secret"], "admin")

    def pid(self, part: str) -> int:
        """Return a part's pid as cluster.json has it; 0 while it does not run."""
        return next((int(p["pid"]) for p in self.file()["processes"] if p["name"].startswith(part)), 0)

    def plan(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "plan.json").read_text()))

    def logs(self) -> str:
        """Return the ends of all logs, for a failure's message."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        ends = {log.name: log.read_text(errors="replace").splitlines()[-15:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in ends.items())


def traces(folder: Path, cgroup_roots: list[str]) -> list[str]:
    """Return everything of a cluster that is on this host, by our own reading of /proc and /sys."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    loops = {file.parts[3]: _text(file) for file in Path("/sys/block").glob("loop*/loop/backing_file")}
    tops = [top for root in cgroup_roots for top in cgroups_at(root)]
    found = [f"mount {line.split()[4]}" for line in mounts if f" {folder}/" in line]
    found += [f"loop {name}" for name, file in loops.items() if file.startswith(f"{folder}/")]
    found += [f"cgroup {top}" for top in tops]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            words = command + (process / "environ").read_bytes()
            cgroups = (process / "cgroup").read_text()
        except OSError:
            continue
        if int(process.name) == os.getpid() or not command:
            continue
        ours = bytes(folder) + b"/" in words or bytes(folder) + b"\0" in words
        if ours or any(f"/{root}/" in cgroups for root in cgroup_roots):
            found.append(f"process {process.name} {words[:80]!r}")
    return found


def _text(file: Path) -> str:
    """Return what a file of the kernel says; nothing when what it speaks of has just gone."""
    try:
        return file.read_text()
    except OSError:
        return ""


def fetched(url: str, timeout_s: float = 15) -> str:
    """Return a page, or nothing while nobody serves it."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def cgroups_at(path: str) -> list[Path]:
    """Return the cgroups of that path (a glob) in every hierarchy: v1's, the v2 tree beside, or v2 alone."""
    top = Path("/sys/fs/cgroup")
    return [*top.glob(path), *top.glob(f"*/{path}")]


def job_file(folder: Path, name: str, **job: Any) -> Path:
    """Write a job file: ``task`` is its only task's fields over small defaults, the rest the job's."""
    task = {"cpu": "100m", "memory": "64M", "start": "exec sleep 1000"} | job.pop("task", {})
    pod = {"workspace": {"path": "/home/work", "size": "16M"}, "tasks": [task]} | job.pop("pod", {})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "pod": pod, **job}))
    return path


def hello_package(folder: Path, version: str) -> Path:
    """Package the example under another version."""
    source = folder / f"hello-{version}"
    source.mkdir(exist_ok=True)
    text = HELLO.read_text().replace('VERSION = "1.0.0"', f'VERSION = "{version}"')
    (source / "hello.py").write_text(text)
    path = folder / f"hello-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source / "hello.py", arcname="hello.py")
    return path


def hello_job(folder: Path, name: str, version: str, **deploy: Any) -> Path:
    """Write a job file of the example, as service ``name``."""
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
def new_cluster() -> Iterator[Callable[[], Cluster]]:
    """Make folders for clusters; whatever a test leaves in them is ended and removed."""
    made: list[Cluster] = []

    def make() -> Cluster:
        made.append(Cluster(Path(tempfile.mkdtemp(prefix="galaxy-e2e-")).resolve() / "c"))
        return made[-1]

    yield make
    for cluster in made:
        cluster.run("down", "--dir", str(cluster.folder), status=None, timeout_s=120)
        shutil.rmtree(cluster.folder.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    """The cluster that most tests share: one agent, no Flower."""
    shared = new_cluster()
    shared.up("--no-web")
    yield shared
    shared.down()


@pytest.fixture
def jobs(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """Note names of jobs that are to be gone after the test."""
    names: list[str] = []
    yield names.append
    for name in names:
        cluster.run("job", "remove", "--yes", name, status=None)
