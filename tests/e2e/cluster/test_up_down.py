"""``galaxy up`` starts a cluster, and ``galaxy down`` or Ctrl-C leaves nothing of it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from galaxy.model.api.views import EndpointView
from galaxy.model.base import from_plain
from tests.support.interrupts import accept_interrupts
from tests.support.redis_server import free_port
from tests.support.waiting import until

from .conftest import GALAXY, ROOT, Cluster, hello_job, job_file, leftovers_of
from .test_service import fetch


def test_cluster_in_the_foreground_ends_on_ctrl_c_and_leaves_nothing(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    job = hello_job(tmp_path, "hello", "1.0.0", replica=2)
    port = str(free_port())
    up = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--web-port", port, "--run", str(job)],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, preexec_fn=accept_interrupts,
    )  # fmt: skip
    try:
        assert up.stdout is not None
        lines = []
        for line in up.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert '"hello": "world"' in "".join(lines), lines
        assert len(own.pods("hello")) == 2
        flower = own.file()["flower"]
        up.send_signal(signal.SIGINT)
        rest = up.stdout.read()
        assert up.wait(100) == 130, rest
    finally:
        up.kill()
        up.wait()
    assert leftovers_of(own.folder, own.cgroup_roots()) == []
    assert not (own.folder / "cluster.json").exists()
    with pytest.raises(OSError):
        urllib.request.urlopen(flower, timeout=2)


def test_part_that_is_not_ready_in_time_is_named_and_everything_is_stopped(
    new_cluster: Callable[[], Cluster],
) -> None:
    own = new_cluster()
    up = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--no-web", "--timeout", "5s"],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        os.kill(
            until("an agent", lambda: (own.folder / "cluster.json").exists() and own.pid("agent")),
            signal.SIGSTOP,
        )
        _, errors = up.communicate(timeout=120)
    finally:
        up.kill()
        up.wait()
    assert up.returncode == 1
    assert "not come up: not ready in 5s" in errors and "agent.log" in errors and "--timeout TIME" in errors
    assert leftovers_of(own.folder, own.cgroup_roots()) == []


def test_killing_galaxy_up_ends_the_cluster(new_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    own = new_cluster()
    up = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--no-web"],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert up.stdout is not None
    next(line for line in up.stdout if "Ctrl-C" in line)
    up.kill()
    up.wait()
    until("everything has ended", lambda: not (own.folder / "cluster.json").exists(), 60)
    # The supervisor removes that file before it ends itself.
    until("the supervisor has ended", lambda: not leftovers_of(own.folder, own.cgroup_roots()))


@pytest.mark.parametrize(
    "victims",
    [["supervisor"], ["supervisor", "agent", "resman", "server"], ["supervisor", "agent", "launcher"]],
    ids=" ".join,
)
def test_down_ends_everything_after_parts_were_killed(
    victims: list[str], new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web")
    own.run("job", "run", str(job_file(tmp_path, "left", deploy={"replica": 2})))
    pids = [
        pid for name in victims for pid in (launchers(own.folder) if name == "launcher" else [own.pid(name)])
    ]
    assert len(pids) >= len(victims)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    own.down()
    assert leftovers_of(own.folder, own.cgroup_roots()) == []
    assert not (own.folder / "cluster.json").exists()
    assert "no cluster runs" in own.down().stdout


def launchers(folder: Path) -> list[int]:
    """Return the processes of a cluster with a launcher's command line."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"galaxy.container.launcher.server" in command and bytes(folder) in command:
            pids.append(int(process.name))
    return pids


def test_up_takes_over_from_a_killed_supervisor(new_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    own = new_cluster()
    own.up("--no-web")
    own.run("job", "run", str(hello_job(tmp_path, "stays", "1.0.0", replica=1)))
    before = own.pods("stays")[0]
    os.kill(own.pid("supervisor"), signal.SIGKILL)
    own.up("--no-web")
    after = until("the pod is reported", lambda: [p for p in own.pods("stays") if p.healthy])[0]
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)
    own.down()
    assert leftovers_of(own.folder, own.cgroup_roots()) == []


def test_up_where_a_cluster_runs_says_so(cluster: Cluster) -> None:
    assert "already runs" in cluster.up().stdout


def test_two_clusters_run_side_by_side_and_each_ends_alone(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    clusters = [new_cluster(), new_cluster()]
    for own in clusters:
        own.up("--no-web")
    assert len({root for own in clusters for root in own.cgroup_roots()}) == 2
    for number, own in enumerate(clusters, 1):
        own.run("job", "run", str(hello_job(tmp_path, "same", f"{number}.0.0", replica=2)))
    for number, own in enumerate(clusters, 1):
        answers = [fetch(endpoint) for endpoint in own.endpoints("same")]
        assert len(answers) == 2
        assert all(f'"version": "{number}.0.0"' in answer for answer in answers)
    clusters[0].down()
    assert leftovers_of(clusters[0].folder, clusters[0].cgroup_roots()) == []
    assert not (clusters[0].folder / "cluster.json").exists()
    assert len([fetch(endpoint) for endpoint in clusters[1].endpoints("same")]) == 2
    clusters[1].down()
    assert leftovers_of(clusters[1].folder, clusters[1].cgroup_roots()) == []


def test_cluster_without_root_says_that_its_mode_is_lesser_and_runs_hello(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    folder = Path(tempfile.mkdtemp(prefix="galaxy-nobody-"))
    try:
        (folder / "files").mkdir()
        hello_job(folder / "files", "hello", "1.0.0", replica=2)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "GALAXY_DIR": str(folder / "c")}

        def galaxy(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*become, *GALAXY, *arguments],
                env=environ, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
            )  # fmt: skip

        python = [sys.executable, "-P", "-c", "import sys, galaxy; print(sys.version, galaxy.__file__)"]
        as_nobody = subprocess.run([*become, *python], cwd="/", capture_output=True, check=False).stdout
        if as_nobody != subprocess.run(python, cwd="/", capture_output=True, check=True).stdout:
            pytest.skip(f"user nobody cannot run {sys.executable}")
        up = galaxy("up", "--detach", "--no-web", "--run", str(folder / "files" / "hello.yaml"))
        try:
            assert up.returncode == 0, up.stdout + up.stderr
            assert "lesser mode" in up.stdout
            assert '"hello": "world"' in up.stdout
            endpoints = json.loads(galaxy("discover", "hello", "-o", "json").stdout)
            assert len([fetch(from_plain(one, EndpointView)) for one in endpoints]) == 2
        finally:
            down = galaxy("down")
        assert down.returncode == 0, down.stdout + down.stderr
        assert leftovers_of(folder / "c", []) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_doctor_reports_mode_and_enforced_limits_of_this_host(cluster: Cluster) -> None:
    report = cluster.json("doctor")
    assert report["mode"] == "full"
    assert {"cpu", "memory", "pids", "disk"} <= set(report["enforced"])
    assert any(check["name"] == "server" and check["ok"] for check in report["checks"])


def test_scripts_that_the_readme_names_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for script in ("deploy/quickstart.sh", "deploy/test.sh"):
        assert f"sh {script}" in readme
        assert (ROOT / script).is_file()
