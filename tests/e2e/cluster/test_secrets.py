"""Secrets of a real cluster: programs have them, and they are nowhere where they need not be."""

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
HOLDERS = {"galaxy:appmaster:table:secrets", "galaxy:appmaster:table:sealed"}
"""The only keys of Redis in which a value may be when nothing is on its way."""
PROGRAMS = {"sleep", "sh", "dash", "bash", "sha256sum"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def loud(new_cluster: Callable[[], Cluster]) -> Cluster:
    """A cluster with Flower whose parts log all that they can."""
    cluster = new_cluster()
    environ = cluster.environ | {"GALAXY_LOG_LEVEL": "debug"}
    words = [*GALAXY, "up", "--detach", "--dir", str(cluster.folder)]
    subprocess.run(words, env=environ, check=True, capture_output=True, timeout=120)
    return cluster


@pytest.fixture
def events(loud: Cluster) -> Iterator[Callable[[], bytes]]:
    """Listen to all that Celery's processes tell Flower; give what was heard."""
    client = redis.Redis.from_url(loud.admin_url())
    heard = client.pubsub()
    heard.psubscribe("*")

    def taken() -> bytes:
        got = []
        while (message := heard.get_message(timeout=0.2)) is not None:
            got.append(opened(repr(message).encode()))
        return b"\n".join(got)

    yield taken
    heard.close()
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
        # One that has gone since is of type "none".
        texts = {key.decode(): repr(read[kind](key)) for key, kind in kinds.items() if kind in read}
        return {key: opened(text.encode()) for key, text in texts.items()}
    finally:
        client.close()


def opened(text: bytes) -> bytes:
    """Return ``text`` with the bodies of messages, which kombu writes in base64, readable behind it."""
    bodies = re.findall(rb'"body": ?"([A-Za-z0-9+/]+=*)"', text)
    return b"\n".join((text, *(base64.b64decode(body) for body in bodies)))


def flower(cluster: Cluster, host: str) -> bytes:
    """Return what Flower says on every page that could show a task's arguments."""
    pages = [
        "tasks", "tasks/datatable?draw=1&start=0&length=500&search[value]=&order[0][column]=0"
        "&order[0][dir]=asc&columns[0][data]=name",
        "broker", "workers?json=1", "metrics", "api/tasks", "api/workers",
        *(f"worker/{part}@{host}" for part in ("appmaster", "agent", "resman")),
    ]  # fmt: skip
    said = []
    for page in pages:
        with contextlib.suppress(http.client.HTTPException):
            try:
                with urllib.request.urlopen(cluster.file()["flower"] + page, timeout=15) as answer:
                    said.append(answer.read())
            except urllib.error.HTTPError as error:
                said.append(error.read())
    return b"\n".join(said)


def files_with(folder: Path, needles: list[bytes]) -> list[str]:
    """Return files of a cluster in which a value stands, but for the server's own."""
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
    """Return processes of this host with a value in their ``cmdline`` or ``environ``, by name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(needle in (process / what).read_bytes() for needle in needles):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def test_programs_have_secrets_and_nothing_else_shows_them(
    loud: Cluster, events: Callable[[], bytes], tmp_path: Path
) -> None:
    first, second, token = (f"s3cr3t-{secrets.token_hex(12)}" for _ in range(3))
    (tmp_path / "token").write_text(token + "\n")
    said = set_secret(loud, "db", first)
    env = {"DB": {"secret": "db"}, "TOKEN": {"file": "./token"}}
    path = str(job_file(tmp_path, "vault", task={"start": START, "env": env}))
    said += loud.run("job", "validate", path).stdout
    said += loud.run("job", "run", path).stdout
    assert until("the program's digests", lambda: digest(token) in loud.run("logs", "vault").stdout)
    assert digest(first) in loud.run("logs", "vault").stdout
    shell = 'printf %s "$DB" | sha256sum'
    assert digest(first) in loud.run("exec", "vault", "--", "sh", "-c", shell).stdout

    said += set_secret(loud, "db", second)
    assert digest(first) in loud.run("exec", "vault", "--", "sh", "-c", shell).stdout
    said += loud.run("job", "update", path).stdout
    assert digest(second) in loud.run("exec", "vault", "--", "sh", "-c", shell).stdout
    for part in ("appmaster", "agent"):
        os.kill(loud.pid(part), 9)
    until("an AppMaster again", lambda: loud.run("job", "show", "vault", status=None).returncode == 0)
    until("an agent again", lambda: loud.run("exec", "vault", "--", "true", status=None).returncode == 0)
    assert digest(second) in loud.run("exec", "vault", "--", "sh", "-c", shell).stdout

    lost = str(job_file(tmp_path, "lost", task={"env": {"X": {"secret": "nothing"}, "Y": env["TOKEN"]}}))
    for words, status in (
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
        (("secret", "remove", "db"), 1),
        (("audit",), 0),
    ):
        done = loud.run(*words, status=status)
        said += done.stdout + done.stderr
    assert 'there is no secret "nothing"' in said
    assert "it is used by" in said and "secret.set" in said

    needles = [value.encode() for value in (first, second, token)]
    (agent,) = loud.agents()
    heard = events()
    assert b"galaxy.pod.deploy" in heard and b"galaxy.secret.set" in heard
    shown = {"commands": said.encode(), "events": heard, "Flower": flower(loud, agent.agent)}
    shown["logs"] = b"".join(log.read_bytes() for log in (loud.folder / "logs").glob("*"))
    assert b"GALAXY_LOG_LEVEL=debug" in Path(f"/proc/{loud.pid('appmaster')}/environ").read_bytes()
    assert [where for where, text in shown.items() for needle in needles if needle in text] == []
    holding = {key for key, text in dump(loud.admin_url()).items() if any(n in text for n in needles)}
    assert holding == HOLDERS
    assert files_with(loud.folder, needles) == []
    assert processes_with("cmdline", needles) == {}
    having = processes_with("environ", needles)
    assert having and set(having.values()) <= PROGRAMS
    loud.run("job", "remove", "--yes", "vault")
    loud.run("secret", "remove", "db")
    gone = [key for key, text in dump(loud.admin_url()).items() if any(n in text for n in needles)]
    assert gone == []
