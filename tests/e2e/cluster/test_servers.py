"""Clusters on the default Redis server, on the embedded one, and on a server that the user runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.waiting import until

from .conftest import Cluster, fetched, hello_job, job_file, leftovers_of
from .test_logins import denied, login_names


@pytest.fixture(scope="module")
def embedded_cluster(new_cluster: Callable[[], Cluster]) -> Iterator[Cluster]:
    """A cluster on the embedded server, with Flower."""
    own = new_cluster()
    own.up("--server", "embedded")
    yield own
    own.down()


@pytest.mark.parametrize("kind", ["web_cluster", "embedded_cluster"])
def test_all_usual_commands_work_on_every_server_and_no_login_is_denied_anything(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cluster: Cluster = request.getfixturevalue(kind)
    host = cluster.agents()[0].agent
    cluster.run("job", "run", str(hello_job(tmp_path, "all", "1.0.0", replica=2, drain="0s")))
    assert "listens" in cluster.run("logs", "all").stdout
    assert cluster.run("exec", "all", "--", "echo", "hi").stdout == "hi\n"
    cluster.run("job", "update", str(hello_job(tmp_path, "all", "2.0.0", replica=2, drain="0s")))
    assert len(cluster.json("discover", "all")) == 2
    cluster.run("status")
    cluster.run("job", "stop", "all")
    cluster.run("job", "remove", "--yes", "all")
    flower = cluster.file()["flower"]

    def online() -> set[str]:
        rows = json.loads(fetched(f"{flower}workers?json=1") or '{"data": []}')["data"]
        return {row["hostname"] for row in rows if row["status"]}

    everyone = {f"resman@{host}", f"appmaster@{host}", f"agent@{host}"}
    until("Flower shows all workers online", lambda: online() == everyone)
    for page in (f"worker/agent@{host}", "broker", "tasks"):
        until(f"page {page}", lambda page=page: fetched(flower + page))
    url = cluster.admin_url()
    logins = dict(login_names(url) - {("", "admin")})
    assert logins["agent"] == f"agent-{host}"
    assert {name: logins[name] for name in ("resman", "appmaster", "web")} == {
        name: name for name in ("resman", "appmaster", "web")
    }
    assert denied(url) == []


def test_flower_shows_every_part_as_a_worker_with_its_queues(web_cluster: Cluster) -> None:
    flower = web_cluster.file()["flower"]

    def workers() -> list[str]:
        rows = json.loads(fetched(f"{flower}workers?json=1") or '{"data": []}')["data"]
        return [row["hostname"] for row in rows]

    roles = {"resman", "appmaster", "agent"}
    until("all three in Flower", lambda: {name.split("@")[0] for name in workers()} >= roles)
    for name in workers():
        role, host = name.split("@")
        queues = [f"agent.{host}", f"appworker.{host}"] if role == "agent" else [role]

        def shown(name: str = name, queues: list[str] = queues) -> bool:
            page = fetched(f"{flower}worker/{name}")
            return all(queue in page for queue in queues)

        until(f"{name} with {queues}", shown)


def test_cluster_on_the_embedded_server_uses_it_again_after_a_restart(
    embedded_cluster: Cluster, tmp_path: Path
) -> None:
    own = embedded_cluster
    assert own.file()["server"] == "embedded"
    own.run("job", "run", "--wait", str(job_file(tmp_path, "b", type="batch", task={"start": "true"})))
    own.down()
    own.up("--no-web")  # Another server of this host could not read the data of the embedded one.
    assert own.file()["server"] == "embedded"
    assert own.show("b").summary.state == "finished"


def test_cluster_on_the_users_own_server_leaves_it_running_and_uses_it_again(
    new_cluster: Callable[[], Cluster], tmp_path: Path, locked_redis_server: RedisServer
) -> None:
    own = new_cluster()
    done = own.up("--no-web", "--redis", locked_redis_server.url)
    assert "a password on the command line" in done.stderr
    assert own.file()["server"] == "configured"
    password = locked_redis_server.password.encode()
    lines = [own.pid(part) for part in ("supervisor", "resman", "appmaster", "agent")]
    assert not any(password in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in lines)
    own.run("job", "run", "--wait", str(job_file(tmp_path, "b", type="batch", task={"start": "true"})))
    assert f"`galaxy up --dir {own.folder} --detach` starts it again" in own.down().stdout
    stopped = own.run("status", status=1).stderr
    assert f"the cluster in {own.folder} is stopped" in stopped
    assert f"galaxy up --dir {own.folder} --detach" in stopped
    assert "cause='SIGTERM from process" in (own.folder / "logs" / "supervisor.log").read_text()
    os.kill(locked_redis_server.pid, 0)
    assert leftovers_of(own.folder, own.cgroup_roots()) == []
    again = own.up("--no-web", GALAXY_REDIS=locked_redis_server.url)
    assert "named by GALAXY_REDIS" in again.stdout
    assert own.file()["server"] == "configured"
    assert own.show("b").summary.state == "finished"
    unused = own.up("--no-web", "--agents", "2").stderr
    assert "these were not used: --agents, --no-web" in unused
    own.down()


def test_up_on_a_server_with_another_password_is_refused_and_starts_nothing(
    new_cluster: Callable[[], Cluster], locked_redis_server: RedisServer
) -> None:
    own = new_cluster()
    wrong = locked_redis_server.url.replace(locked_redis_server.password, "not-it")
    done = own.up("--no-web", "--redis", wrong, status=3)
    assert "password" in done.stderr
    assert "not-it" not in done.stderr
    assert leftovers_of(own.folder, []) == []
    own.up("--no-web")
    assert own.plan().get("redis_url", "") == "", "a server that refused the login was kept"
    own.down()


def test_server_that_never_answers_is_named_with_its_output(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    server = tmp_path / "redis-server"
    server.write_text(
        '#!/bin/sh\n[ "$1" != --version ] || { echo "Redis server v=7.0.15 sha=0:0 bits=64"; exit; }\n'
        'echo "loading for ever"; exec sleep 100\n'
    )
    server.chmod(0o755)
    done = own.up(
        "--no-web", "--server", "redis", "--timeout", "2s", status=1,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )  # fmt: skip
    for text in ("server does not come up: not ready in 2s", "loading for ever", "server.log", "--timeout"):
        assert text in done.stderr
    assert leftovers_of(own.folder, own.cgroup_roots()) == []
