"""Secrets in a real cluster: programs receive them, and nothing else contains or shows them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.e2e.cluster.conftest import GALAXY, Cluster, job_file
from tests.support.waiting import until

START = 'printf %s "$DB" | sha256sum; printf %s "$TOKEN" | sha256sum; exec sleep 1000'
KEYS_WITH_SECRETS = {"galaxy:appmaster:table:secrets", "galaxy:appmaster:table:revision_secrets"}
"""The only keys of Redis that may contain a value while no message is in transit."""
PROGRAMS = {"sleep", "sh", "dash", "bash", "sha256sum"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def events(web_cluster: Cluster) -> Iterator[Callable[[], bytes]]:
    """Subscribe to all channels of Redis; return a function that returns the messages received."""
    client = redis.Redis.from_url(web_cluster.admin_url())
    subscription = client.pubsub()
    subscription.psubscribe("*")
    assert subscription.get_message(timeout=30) is not None  # Redis confirms that it has subscribed.

    def received() -> bytes:
        messages = []
        while (message := subscription.get_message(timeout=0.2)) is not None:
            messages.append(decoded(repr(message).encode()))
        return b"\n".join(messages)

    yield received
    subscription.close()
    client.close()


def set_secret(cluster: Cluster, name: str, value: str) -> str:
    done = subprocess.run(
        [*GALAXY, "secret", "set", name],
        env=cluster.environ, input=value + "\n", capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def dump(url: str) -> dict[str, bytes]:
    """Return everything in Redis by key."""
    client = redis.Redis.from_url(url)
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    try:
        kinds = {key: client.type(key) for key in client.scan_iter(count=1000)}
        # A key that has disappeared since has the type "none".
        texts = {key.decode(): repr(read[kind](key)) for key, kind in kinds.items() if kind in read}
        return {key: decoded(text.encode()) for key, text in texts.items()}
    finally:
        client.close()


def decoded(text: bytes) -> bytes:
    """Return ``text`` followed by the decoded bodies of its messages, which kombu writes in base64."""
    bodies = re.findall(rb'"body": ?"([A-Za-z0-9+/]+=*)"', text)
    return b"\n".join((text, *(base64.b64decode(body) for body in bodies)))


def flower(cluster: Cluster, host: str) -> bytes:
    """Return every page of Flower that could show a task's arguments."""
    pages = [
        "tasks", "tasks/datatable?draw=1&start=0&length=500&search[value]=&order[0][column]=0"
        "&order[0][dir]=asc&columns[0][data]=name",
        "broker", "workers?json=1", "metrics", "api/tasks", "api/workers",
        *(f"worker/{part}@{host}" for part in ("appmaster", "agent", "resman")),
    ]  # fmt: skip
    answers = []
    for page in pages:
        with contextlib.suppress(http.client.HTTPException):
            try:
                with urllib.request.urlopen(cluster.file()["flower"] + page, timeout=15) as answer:
                    answers.append(answer.read())
            except urllib.error.HTTPError as error:
                answers.append(error.read())
    return b"\n".join(answers)


def files_with(folder: Path, needles: list[bytes]) -> list[str]:
    """Return the files of a cluster that contain a needle, except those of the Redis server."""
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "redis"]
        for name in names:
            path = Path(top, name)
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                found += [str(path) for needle in needles if needle in data]
    return found


def processes_with(what: str, needles: list[bytes]) -> dict[int, str]:
    """Return pid and name of each process of this host with a needle in its ``cmdline`` or ``environ``."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(needle in (process / what).read_bytes() for needle in needles):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def test_programs_receive_secrets_and_nothing_else_shows_them(
    web_cluster: Cluster, events: Callable[[], bytes], tmp_path: Path
) -> None:
    first, second, token = (f"s3cr3t-{secrets.token_hex(12)}" for _ in range(3))
    (tmp_path / "token").write_text(token + "\n")
    output = set_secret(web_cluster, "db", first)
    env = {"DB": {"secret": "db"}, "TOKEN": {"file": "./token"}}
    path = str(job_file(tmp_path, "vault", task={"start": START, "env": env}))
    output += web_cluster.run("job", "validate", path).stdout
    output += web_cluster.run("job", "run", path).stdout
    assert until("the program's digests", lambda: digest(token) in web_cluster.run("logs", "vault").stdout)
    assert digest(first) in web_cluster.run("logs", "vault").stdout
    shell = 'printf %s "$DB" | sha256sum'
    assert digest(first) in web_cluster.run("exec", "vault", "--", "sh", "-c", shell).stdout

    output += set_secret(web_cluster, "db", second)
    assert digest(first) in web_cluster.run("exec", "vault", "--", "sh", "-c", shell).stdout
    output += web_cluster.run("job", "update", path).stdout
    assert digest(second) in web_cluster.run("exec", "vault", "--", "sh", "-c", shell).stdout
    for part in ("appmaster", "agent"):
        os.kill(web_cluster.pid(part), 9)
    until("an AppMaster again", lambda: web_cluster.run("job", "show", "vault", status=None).returncode == 0)
    until(
        "an agent again", lambda: web_cluster.run("exec", "vault", "--", "true", status=None).returncode == 0
    )
    assert digest(second) in web_cluster.run("exec", "vault", "--", "sh", "-c", shell).stdout

    lost = str(job_file(tmp_path, "lost", task={"env": {"X": {"secret": "nothing"}, "Y": env["TOKEN"]}}))
    for arguments, status in (
        (("job", "run", lost), 64),
        (("job", "update", path), 0),
        (("job", "show", "vault"), 0),
        (("job", "show", "vault", "-o", "yaml"), 0),
        (("job", "show", "vault", "-o", "json"), 0),
        (("job", "list", "-o", "json"), 0),
        (("status", "-o", "json"), 0),
        (("agent", "list", "-o", "json"), 0),
        (("secret", "list"), 0),
        (("secret", "list", "--all", "-o", "json"), 0),
        (("secret", "remove", "--yes", "db"), 3),
        (("audit",), 0),
    ):
        done = web_cluster.run(*arguments, status=status)
        output += done.stdout + done.stderr
    assert 'there is no secret "nothing"' in output
    assert "it is used by" in output and "secret.set" in output

    needles = [value.encode() for value in (first, second, token)]
    (agent,) = web_cluster.agents()
    published = events()
    assert b"galaxy.pod.deploy" in published and b"galaxy.secret.set" in published
    shown = {"commands": output.encode(), "events": published, "Flower": flower(web_cluster, agent.agent)}
    shown["logs"] = b"".join(log.read_bytes() for log in (web_cluster.folder / "logs").glob("*"))
    assert b"GALAXY_LOG_LEVEL=debug" in Path(f"/proc/{web_cluster.pid('appmaster')}/environ").read_bytes()
    assert [where for where, text in shown.items() for needle in needles if needle in text] == []
    holding = {key for key, text in dump(web_cluster.admin_url()).items() if any(n in text for n in needles)}
    assert holding == KEYS_WITH_SECRETS
    assert files_with(web_cluster.folder, needles) == []
    assert processes_with("cmdline", needles) == {}
    processes = processes_with("environ", needles)
    assert processes and set(processes.values()) <= PROGRAMS
    web_cluster.run("job", "remove", "--yes", "vault")
    web_cluster.run("secret", "remove", "--yes", "db")
    left = [key for key, text in dump(web_cluster.admin_url()).items() if any(n in text for n in needles)]
    assert left == []
