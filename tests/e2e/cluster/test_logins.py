"""A whole cluster in which every part has a login of its own: it all works, and nothing is denied."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from galaxy.client.login_urls import login_url
from tests.e2e.cluster.conftest import Cluster, fetched, hello_job, job_file
from tests.support.waiting import until


def client_names(url: str) -> set[tuple[str, str]]:
    client = redis.Redis.from_url(url)
    try:
        listed = client.client_list()
    finally:
        client.close()
    return {(re.split("[@/]", entry["name"])[0], entry["user"]) for entry in listed if entry["name"]}


def denied(url: str) -> list[tuple[str, str]]:
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        return [(entry["username"], entry["object"]) for entry in client.acl_log()]
    finally:
        client.close()


def test_agent_with_another_hosts_login_ends_at_once_and_says_why(
    new_cluster: Callable[[], Cluster],
) -> None:
    cluster = new_cluster()
    cluster.up("--no-web")
    url = cluster.run("redis", "url", "agent", "--host", "h8", "--dir", str(cluster.folder)).stdout.strip()
    own = ("--state", str(cluster.folder / "agent" / "h9"), "--mode", "process")
    done = cluster.run("agent", "--name", "h9", "--redis", url, *own, status=3)
    assert 'this login may not take orders for host "h9"' in done.stderr
    assert "galaxy redis url agent --host h9" in done.stderr
    assert "h9" not in [agent.agent for agent in cluster.agents()]


@pytest.mark.parametrize("server", ["redis", "embedded"])
def test_everything_people_do_works_and_no_login_is_ever_denied(
    server: str, new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster()
    cluster.up("--server", server)
    host = cluster.agents()[0].agent
    cluster.run("job", "run", str(hello_job(tmp_path, "hello", "1.0.0", replica=2, drain="0s")))
    assert "listens" in cluster.run("logs", "hello").stdout
    assert cluster.run("exec", "hello", "--", "echo", "hi").stdout == "hi\n"
    cluster.run("job", "update", str(hello_job(tmp_path, "hello", "2.0.0", replica=2, drain="0s")))
    assert len(cluster.json("discover", "hello")) == 2
    cluster.run("status")
    cluster.run("job", "stop", "hello")
    cluster.run("job", "remove", "--yes", "hello")
    flower = cluster.file()["flower"]

    def seen() -> bool:
        rows = json.loads(fetched(f"{flower}workers?json=1") or '{"data": []}')["data"]
        online = {row["hostname"] for row in rows if row["status"]}
        return online == {f"resman@{host}", f"appmaster@{host}", f"agent@{host}"}

    until("Flower sees all workers", seen)
    for page in (f"worker/agent@{host}", "broker", "tasks"):
        until(f"page {page}", lambda page=page: fetched(flower + page))
    url = cluster.admin_url()
    users = dict(client_names(url) - {("", "admin")})
    assert users["agent"] == f"agent-{host}"
    assert {name: users[name] for name in ("resman", "appmaster", "web")} == {
        name: name for name in ("resman", "appmaster", "web")
    }
    assert denied(url) == []
    cluster.down()


def test_files_with_passwords_are_for_their_owner_only_and_hold_no_more_than_they_need(
    cluster: Cluster,
) -> None:
    for name in ("cluster.json", "plan.json", "redis/users.acl", "redis/server.conf"):
        assert (cluster.folder / name).stat().st_mode & 0o777 == 0o600
    assert cluster.file()["url"].startswith("redis://client:")
    for part in ("resman", "appmaster", "agent"):
        pid = cluster.pid(part)
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert f"GALAXY_REDIS=redis://{part}".encode() in b" ".join(environ)
        assert cluster.file()["secret"].encode() not in b" ".join(environ)
        assert b"redis://" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_no_password_of_ours_is_in_a_container(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("curious")
    cluster.run("job", "run", str(job_file(tmp_path, "curious")))
    done = cluster.run("exec", "curious", "--", "sh", "-c", "env; cat /proc/*/environ /proc/*/cmdline; true")
    assert cluster.file()["secret"] not in done.stdout
    assert "redis://" not in done.stdout


def test_second_agent_started_by_hand_gets_a_login_of_its_own(cluster: Cluster) -> None:
    url = cluster.run("redis", "url", "agent", "--host", "by-hand").stdout.strip()
    assert url == login_url(cluster.file()["url"], cluster.file()["secret"], "agent", "by-hand")
    client = redis.Redis.from_url(url)
    try:
        assert client.llen("agent.by-hand") == 0
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.llen(f"agent.{os.uname().nodename}")
    finally:
        client.close()
        admin = redis.Redis.from_url(cluster.admin_url())
        admin.acl_log_reset()
        admin.close()
