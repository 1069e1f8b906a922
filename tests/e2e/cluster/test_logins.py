"""Every part of a cluster has its own Redis login, with access only to what the part needs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from galaxy.client.login_urls import login_url

from .conftest import Cluster, job_file


def login_names(url: str) -> set[tuple[str, str]]:
    """Return connection name (without host and number) and login of every connection."""
    client = redis.Redis.from_url(url)
    try:
        connections = client.client_list()
    finally:
        client.close()
    return {(re.split("[@/]", entry["name"])[0], entry["user"]) for entry in connections if entry["name"]}


def denied(url: str) -> list[tuple[str, str]]:
    """Return login and object of every command that Redis has denied."""
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        return [(entry["username"], entry["object"]) for entry in client.acl_log()]
    finally:
        client.close()


def test_passwords_are_in_files_for_their_owner_only_and_each_part_gets_only_its_own(
    cluster: Cluster,
) -> None:
    """It runs first in this file: ``galaxy redis url agent`` makes Redis rewrite users.acl with mode 644."""
    for name in ("cluster.json", "plan.json", "redis/users.acl", "redis/server.conf"):
        assert (cluster.folder / name).stat().st_mode & 0o777 == 0o600
    assert cluster.file()["url"].startswith("redis://client:")
    for part in ("resman", "appmaster", "agent"):
        pid = cluster.pid(part)
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert f"GALAXY_REDIS=redis://{part}".encode() in b" ".join(environ)
        assert cluster.file()["secret"].encode() not in b" ".join(environ)
        assert b"redis://" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_agent_with_the_login_of_another_host_exits_at_once_with_the_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    url = cluster.run("redis", "url", "agent", "--host", "h8").stdout.strip()
    own = ("--state", str(tmp_path / "h9"), "--mode", "process")
    done = cluster.run("agent", "--name", "h9", "--redis", url, *own, status=3)
    assert 'this login may not take orders for host "h9"' in done.stderr
    assert "galaxy redis url agent --host h9" in done.stderr
    assert "h9" not in [agent.agent for agent in cluster.agents()]


def test_no_password_of_the_cluster_is_visible_in_a_container(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("curious")
    cluster.run("job", "run", str(job_file(tmp_path, "curious")))
    done = cluster.run("exec", "curious", "--", "sh", "-c", "env; cat /proc/*/environ /proc/*/cmdline; true")
    assert cluster.file()["secret"] not in done.stdout
    assert "redis://" not in done.stdout


def test_login_created_for_another_agent_reads_only_its_own_queues(cluster: Cluster) -> None:
    url = cluster.run("redis", "url", "agent", "--host", "by-hand").stdout.strip()
    assert url == login_url(cluster.file()["url"], cluster.file()["secret"], "agent", "by-hand")
    client = redis.Redis.from_url(url)
    try:
        assert client.llen("agent.by-hand") == 0
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.llen(f"agent.{os.uname().nodename}")
    finally:
        client.close()
