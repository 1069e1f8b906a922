"""``galaxy up`` and ``galaxy down``: what comes up, and that nothing of it stays."""

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
from tests.support.redis_server import RedisServer
from tests.support.waiting import until

from .conftest import GALAXY, ROOT, Cluster, fetched, hello_job, job_file, traces
from .test_service import fetch


def roots(cluster: Cluster) -> list[str]:
    return [agent["cgroup_root"] for agent in cluster.plan()["agents"]]


def test_ctrl_c_leaves_nothing_behind(new_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    own = new_cluster()
    job = hello_job(tmp_path, "hello", "1.0.0", replica=2)
    front = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--run", str(job)],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, preexec_fn=accept_interrupts,
    )  # fmt: skip
    try:
        assert front.stdout is not None
        said = []
        for line in front.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        assert '"hello": "world"' in "".join(said), said
        assert len(own.pods("hello")) == 2
        front.send_signal(signal.SIGINT)
        rest = front.stdout.read()
        assert front.wait(100) == 130, rest
    finally:
        front.kill()
        front.wait()
    assert traces(own.folder, roots(own)) == []
    assert not (own.folder / "cluster.json").exists()


def test_part_that_does_not_come_up_in_time_is_named_and_all_is_ended(
    new_cluster: Callable[[], Cluster],
) -> None:
    own = new_cluster()
    front = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--no-web", "--timeout", "8s"],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        os.kill(
            until("an agent", lambda: (own.folder / "cluster.json").exists() and own.pid("agent")),
            signal.SIGSTOP,
        )
        _, said = front.communicate(timeout=120)
    finally:
        front.kill()
        front.wait()
    assert front.returncode == 1
    assert "not come up: not ready in 8s" in said and "agent.log" in said and "--timeout TIME" in said
    assert traces(own.folder, roots(own)) == []


def test_server_that_never_answers_is_named_with_what_it_said(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    server = tmp_path / "redis-server"
    server.write_text(
        '#!/bin/sh\n[ "$1" != --version ] || { echo "Redis server v=7.0.15 sha=0:0 bits=64"; exit; }\n'
        'echo "loading for ever"; exec sleep 100\n'
    )
    server.chmod(0o755)
    done = subprocess.run(
        [*GALAXY, "up", "--detach", "--dir", str(own.folder), "--server", "redis", "--timeout", "2s"],
        env=own.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    for words in ("server does not come up: not ready in 2s", "loading for ever", "server.log", "--timeout"):
        assert words in done.stderr
    assert traces(own.folder, roots(own)) == []


def test_killed_front_takes_the_cluster_with_it(new_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    own = new_cluster()
    front = subprocess.Popen(
        [*GALAXY, "up", "--dir", str(own.folder), "--no-web"],
        env=own.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert front.stdout is not None
    next(line for line in front.stdout if "Ctrl-C" in line)
    front.kill()
    front.wait()
    until("everything ended", lambda: not (own.folder / "cluster.json").exists(), 60)
    until("the back, too", lambda: not traces(own.folder, roots(own)))  # It removes that file first.


@pytest.mark.parametrize("victims", [[], ["supervisor"], ["supervisor", "agent", "resman", "server"]])
def test_down_ends_everything_whatever_was_killed_before(
    victims: list[str], new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web")
    own.run("job", "run", str(job_file(tmp_path, "left", deploy={"replica": 2})))
    for victim in [own.pid(name) for name in victims]:
        os.kill(victim, signal.SIGKILL)
    own.down()
    assert traces(own.folder, roots(own)) == []
    assert not (own.folder / "cluster.json").exists()
    assert "no cluster runs" in own.down().stdout


def test_down_ends_everything_though_its_launcher_was_killed(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web")
    own.run("job", "run", str(job_file(tmp_path, "left")))
    for victim in (own.pid("supervisor"), own.pid("agent"), *launchers(own.folder)):
        os.kill(victim, signal.SIGKILL)
    own.down()
    assert traces(own.folder, roots(own)) == []


def launchers(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"galaxy.container.launcher.server" in words and bytes(folder) in words:
            found.append(int(process.name))
    return found


def test_up_takes_over_what_a_killed_supervisor_left(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web")
    own.run("job", "run", str(hello_job(tmp_path, "stays", "1.0.0", replica=1)))
    before = own.pods("stays")[0]
    os.kill(own.pid("supervisor"), signal.SIGKILL)
    own.up("--no-web")
    after = until("the pod reported", lambda: [p for p in own.pods("stays") if p.healthy])[0]
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)
    own.down()
    assert traces(own.folder, roots(own)) == []


def test_up_where_a_cluster_runs_says_so(cluster: Cluster) -> None:
    assert "already runs" in cluster.up().stdout


def test_two_clusters_live_side_by_side(new_cluster: Callable[[], Cluster], tmp_path: Path) -> None:
    clusters = [new_cluster(), new_cluster()]
    for own in clusters:
        own.up("--no-web")
    assert len({root for own in clusters for root in roots(own)}) == 2
    for number, own in enumerate(clusters, 1):
        own.run("job", "run", str(hello_job(tmp_path, "same", f"{number}.0.0", replica=2)))
    for number, own in enumerate(clusters, 1):
        answers = [fetch(endpoint) for endpoint in own.endpoints("same")]
        assert len(answers) == 2
        assert all(f'"version": "{number}.0.0"' in answer for answer in answers)
    clusters[0].down()
    assert traces(clusters[0].folder, roots(clusters[0])) == []
    assert len([fetch(endpoint) for endpoint in clusters[1].endpoints("same")]) == 2
    clusters[1].down()
    assert traces(clusters[1].folder, roots(clusters[1])) == []


def test_cluster_on_the_embedded_server_comes_up_on_it_again(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web", "--server", "embedded")
    assert own.file()["server"] == "embedded"
    own.run("job", "run", "--wait", str(job_file(tmp_path, "b", type="batch", task={"start": "true"})))
    own.down()
    own.up("--no-web")  # Another server of this host could not read what that one wrote.
    assert own.file()["server"] == "embedded"
    assert own.show("b").summary.state == "finished"
    own.down()


def test_cluster_on_somebodys_own_server_leaves_it_running(
    new_cluster: Callable[[], Cluster], tmp_path: Path, locked_redis_server: RedisServer
) -> None:
    own = new_cluster()
    own.up("--no-web", "--redis", locked_redis_server.url)
    assert own.file()["server"] == "configured"
    own.run("job", "run", "--wait", str(job_file(tmp_path, "b", type="batch", task={"start": "true"})))
    own.down()
    os.kill(locked_redis_server.pid, 0)
    assert traces(own.folder, roots(own)) == []
    own.up("--no-web")
    assert own.file()["server"] == "configured", "the folder remembers whose server it goes with"
    assert own.show("b").summary.state == "finished"
    own.down()


def test_up_on_a_server_with_another_password_is_refused_and_starts_nothing(
    new_cluster: Callable[[], Cluster], locked_redis_server: RedisServer
) -> None:
    own = new_cluster()
    wrong = locked_redis_server.url.replace(locked_redis_server.password, "not-it")
    done = own.run("up", "--detach", "--dir", str(own.folder), "--redis", wrong, status=3)
    assert "password" in done.stderr
    assert "not-it" not in done.stderr
    assert traces(own.folder, []) == []
    own.up("--no-web")
    assert own.plan().get("redis_url", "") == "", "a server that refused is not remembered"
    own.down()


def test_flower_shows_every_part_as_a_worker_with_its_queues(new_cluster: Callable[[], Cluster]) -> None:
    own = new_cluster()
    own.up()
    address = own.file()["flower"]

    def workers() -> dict[str, object]:
        rows = json.loads(fetched(f"{address}workers?json=1") or '{"data": []}')["data"]
        return {worker["hostname"]: worker for worker in rows}

    roles = {"resman", "appmaster", "agent"}
    until("all three in Flower", lambda: {name.split("@")[0] for name in workers()} >= roles)
    for name in workers():
        role, host = name.split("@")
        queues = [f"agent.{host}", f"appworker.{host}"] if role == "agent" else [role]

        def shown(name: str = name, queues: list[str] = queues) -> bool:
            page = fetched(f"{address}worker/{name}")
            return all(queue in page for queue in queues)

        until(f"{name} with {queues}", shown)
    own.down()
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=2)


def test_without_root_hello_runs_in_a_stated_lesser_mode(tmp_path: Path) -> None:
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

        def galaxy(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*become, *GALAXY, *words],
                env=environ, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
            )  # fmt: skip

        ask = [sys.executable, "-P", "-c", "import sys, galaxy; print(sys.version, galaxy.__file__)"]
        theirs = subprocess.run([*become, *ask], cwd="/", capture_output=True, check=False).stdout
        if theirs != subprocess.run(ask, cwd="/", capture_output=True, check=True).stdout:
            pytest.skip(f"{sys.executable} is not for nobody to run")
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
        assert traces(folder / "c", []) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_doctor_says_what_this_host_enforces(cluster: Cluster) -> None:
    found = cluster.json("doctor")
    assert found["mode"] == "full"
    assert {"cpu", "memory", "pids", "disk"} <= set(found["enforced"])
    assert any(check["name"] == "server" and check["ok"] for check in found["checks"])


def test_quickstart_is_two_lines_of_readme_and_they_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    for script in ("deploy/quickstart.sh", "deploy/test.sh"):
        assert f"sh {script}" in readme
        assert (ROOT / script).is_file()
