"""The two hosts of README: the second joins with one command, and shares no files with the first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from galaxy.cli.local import leftovers
from tests.e2e.hosts.fleet import GALAXY, _environ
from tests.support.cleanup import remove_empty_cgroups
from tests.support.netns import Host, Network, PrivateFiles, missing
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing())]

SERVE = (
    "import http.server,os;"
    "from pathlib import Path;"
    "text=(Path('version').read_text()+' '+os.environ['GALAXY_HOST']+' '+str(os.getpid())).encode();"
    "H=type('H',(http.server.BaseHTTPRequestHandler,),{'do_GET':lambda s:("
    "s.send_response(200),s.end_headers(),s.wfile.write(text))});"
    "http.server.HTTPServer(('0.0.0.0',int(os.environ['GALAXY_PORT_HTTP'])),H).serve_forever()"
)
STATE2 = "/var/lib/galaxy"
"""Default folder of ``galaxy agent`` as root; private to the second host, as is the folder of the first."""


class TwoHosts:
    """``galaxy up`` on the first host, in ``folder``, which the second host does not see."""

    def __init__(self, network: Network) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="galaxy-two-", dir="/tmp")).resolve()
        self.one: Host = network.add("one")
        self.two: Host = network.add("two")
        Path(STATE2).mkdir(exist_ok=True)
        self.files = PrivateFiles(self.two, (str(self.folder), STATE2))
        self.root = f"galaxy-two-{os.getpid()}"
        self.agent: subprocess.Popen[bytes] | None = None
        assert not list(self.files.path(str(self.folder)).iterdir())

    @property
    def environ(self) -> dict[str, str]:
        own = {"GALAXY_DIR": str(self.folder / "cluster"), "HOME": str(self.folder), "XDG_CONFIG_HOME": ""}
        return _environ() | own

    def cli(self, *arguments: str, status: int = 0) -> str:
        """Run ``galaxy ARGUMENTS`` on the first host; return its output."""
        done = self.one.run(
            [*GALAXY, *arguments], env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "-o", "json"))

    def join(self) -> None:
        """Do what README says; the cgroup root is the machine's, which both hosts share here."""
        url = self.cli("redis", "url", "agent", "--host", "h2").strip()
        with open(self.folder / "h2.log", "ab") as log:
            self.agent = self.files.popen(
                [*GALAXY, "agent", "--name", "h2", "--pool", "main", "--cgroup-root", self.root],
                env=_environ() | {"GALAXY_REDIS": url}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        until("h2 has joined", lambda: "h2" in self.alive(), 30)

    def alive(self) -> set[str]:
        return {agent["agent"] for agent in self.json("agent", "list") if agent["state"] == "alive"}

    def answers(self) -> dict[str, tuple[str, str]]:
        """Return by host the version and the pid that its endpoint answers."""
        found = {}
        with self.one.inside():
            for endpoint in self.json("discover", "web"):
                url = f"http://{endpoint['address']}:{endpoint['port']}/"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    version, host, pid = answer.read().decode().split()
                found[host] = version, pid
        return found

    def write_job(self, version: str) -> None:
        """Write the job file, and a package of ``version`` beside it."""
        (self.folder / "build").mkdir(exist_ok=True)
        (self.folder / "version").write_text(version)
        with tarfile.open(self.folder / "build" / f"web-{version}.tar.gz", "w:gz") as tar:
            tar.add(self.folder / "version", "version")
        task = {
            "cpu": "50m", "memory": "48M", "start": f'exec python3 -c "{SERVE}"', "ports": ["http"],
            "package": {"source": f"build/web-{version}.tar.gz", "version": version},
            "health": {"type": "http", "interval": "500ms"}, "services": ["web"],
        }  # fmt: skip
        job = {
            "name": "web",
            "deploy": {"replica": 2, "max_per_host": 1, "drain": 0},
            "pod": {"workspace": "16M", "tasks": [task]},
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def agent_pid(self) -> int:
        """Return the pid of the first host's agent; 0 while there is none."""
        cluster = json.loads((self.folder / "cluster" / "cluster.json").read_text())
        return sum(process["pid"] for process in cluster["processes"] if process["name"] == "agent")

    def containers(self) -> dict[str, tuple[str, int]]:
        """Return by host the container of the pod there, and its incarnation."""
        pods = self.json("job", "show", "web")["pods"]
        return {pod["agent"]: (pod["container"], pod["incarnation"]) for pod in pods}

    def versions(self) -> list[str]:
        """Return the version that each endpoint answers."""
        return [version for version, _ in self.answers().values()]

    def packages(self) -> list[Path]:
        """Return the packages that the second host has fetched."""
        return list(self.files.path(f"{STATE2}/agent/h2/packages").iterdir())

    def end(self) -> list[str]:
        self.cli("down", "--purge", "--yes")
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(30)
        left = leftovers.remove(self.files.path(STATE2), [self.root], timeout_s=30)
        self.files.close()
        remove_empty_cgroups(self.root)  # Its mark has the path that the second host sees.
        shutil.rmtree(self.folder, ignore_errors=True)
        return list(left.lines())


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with Network() as network:
        hosts = TwoHosts(network)
        try:
            yield hosts
        finally:
            left = hosts.end()
    assert not left


@pytest.mark.timeout(500)
def test_package_of_a_job_file_reaches_a_host_that_joined_and_sees_none_of_its_files(hosts: TwoHosts) -> None:
    """One story, because each step needs the one before: run, update, lose an agent, lose the caches."""
    hosts.cli("up", "--detach", "--listen", hosts.one.address)
    hosts.join()
    hosts.write_job("v1")
    hosts.cli("job", "run", "job.yaml")
    assert hosts.versions() == ["v1", "v1"]
    assert "h2" in hosts.answers()

    hosts.write_job("v2")
    hosts.cli("job", "update", "job.yaml")
    assert hosts.versions() == ["v2", "v2"]
    assert len(hosts.packages()) == 2  # Each was fetched once.

    containers, answers, killed = hosts.containers(), hosts.answers(), hosts.agent_pid()
    os.kill(killed, 9)
    until("the first host's agent is back", lambda: hosts.agent_pid() not in (0, killed), 40)
    assert hosts.answers() == answers  # The same programs, with the same pids.
    hosts.write_job("v3")
    hosts.cli("job", "update", "job.yaml")
    assert hosts.versions() == ["v3", "v3"]
    assert hosts.containers() == containers

    hosts.cli("down")
    shutil.rmtree(hosts.folder / "build")
    for cached in (*hosts.packages(), *(hosts.folder / "cluster").glob("agent/*/packages/*")):
        cached.unlink()
    hosts.cli("up", "--detach", "--listen", hosts.one.address)
    until("both hosts serve again", lambda: hosts.versions() == ["v3", "v3"], 60)
    hosts.cli("job", "remove", "--yes", "web")
