"""``python -m galaxy.web``: Flower over real HTTP, read-only, on loopback."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.support.redis_server import RedisServer

Get = Callable[..., int]


@pytest.fixture
def web(locked_redis_server: RedisServer) -> Iterator[Callable[..., str]]:
    """Return a function that starts a web process, and returns its address once it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environ: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify_socket:
            name = f"galaxy-test-web-{os.getpid()}-{time.monotonic_ns()}"
            notify_socket.bind(f"\0{name}")
            notify_socket.settimeout(60)
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "galaxy.web", "--port", "0"],
                    env={
                        **os.environ, "GALAXY_REDIS": locked_redis_server.url,
                        "NOTIFY_SOCKET": f"@{name}", **environ,
                    },
                )
            )  # fmt: skip
            message = notify_socket.recv(4096).decode()
        return message.split("STATUS=", 1)[1]

    yield start
    for process in started:
        process.terminate()
        assert process.wait(30) == 0


def status(url: str, *, method: str = "GET", login: str = "") -> int:
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_pages_are_served_on_loopback_and_do_not_contain_the_password_of_redis(
    web: Callable[..., str], locked_redis_server: RedisServer
) -> None:
    address = web()
    assert address.startswith("http://127.0.0.1:")
    for page in ("", "workers", "tasks", "broker"):
        with urllib.request.urlopen(address + page, timeout=10) as answer:
            text = answer.read().decode()
        assert "Flower" in text
        assert locked_redis_server.password not in text


def test_api_is_closed_without_a_password(web: Callable[..., str]) -> None:
    address = web()
    assert status(f"{address}api/workers") == 401
    assert status(f"{address}api/task/send-task/galaxy.job.submit", method="POST") == 401


def test_visitors_with_a_password_can_read_and_cannot_change(web: Callable[..., str]) -> None:
    address = web(FLOWER_BASIC_AUTH="ann:secret")
    assert status(f"{address}workers") == 401
    assert status(f"{address}workers", login="ann:wrong") == 401
    assert status(f"{address}metrics") == status(f"{address}metrics", login="ann:wrong") == 401
    assert status(f"{address}metrics", login="ann:secret") == 200
    assert status(f"{address}healthcheck") == 200
    assert status(f"{address}api/workers", login="ann:secret") == 200
    for path in ("worker/shutdown/agent@h1", "task/send-task/galaxy.job.submit", "task/revoke/x"):
        assert status(f"{address}api/{path}", method="POST", login="ann:secret") in (403, 405)


def test_password_with_a_comma_and_other_letters_than_ascii_is_used_exactly(web: Callable[..., str]) -> None:
    login = "ann:pa,ss é"
    address = web(FLOWER_BASIC_AUTH=login)
    assert status(f"{address}workers", login=login) == status(f"{address}api/workers", login=login) == 200
    for wrong in ("ann:pa", "ann:pa,ss", "ann:ß", "ann"):
        assert status(f"{address}workers", login=wrong) == status(f"{address}api/workers", login=wrong) == 401


@pytest.mark.parametrize("login", ["", "ann", "ann:a,bob:b"])
def test_login_that_cannot_work_ends_the_start(redis_server: RedisServer, login: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "galaxy.web", "--port", "0"],
        env={**os.environ, "GALAXY_REDIS": redis_server.url, "FLOWER_BASIC_AUTH": login},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stderr.startswith("galaxy: FLOWER_BASIC_AUTH ")


def test_public_address_is_refused_without_a_password(redis_server: RedisServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "galaxy.web", "--address", "0.0.0.0", "--port", "0"],
        env={**os.environ, "GALAXY_REDIS": redis_server.url}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FLOWER_BASIC_AUTH" in done.stderr


def test_port_in_use_is_an_error_that_names_it(redis_server: RedisServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "galaxy.web", "--port", str(port)],
            env={**os.environ, "GALAXY_REDIS": redis_server.url}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
