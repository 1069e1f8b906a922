"""A fetch from a misbehaving HTTP server fails in time, and nothing is cached."""

from __future__ import annotations

import gzip
import hashlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.agent.packages.cache import FetchedPackage, PackageCache
from galaxy.agent.packages.sources import PackageId
from tests.property.effort import PROCESSES_S, examples
from tests.support.stored_packages import MemoryPackages

PACKAGE = b"a package of some bytes " * 100
LIMIT_BYTES = 100_000
TIMEOUT_S = 2.0
SLACK_S = 40.0
"""Time for three attempts and the start of their processes, on a busy machine."""

Behave = Callable[[socket.socket, threading.Event], None]


def _answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def _send(data: bytes) -> Behave:
    def behave(connection: socket.socket, _over: threading.Event) -> None:
        connection.sendall(data)

    return behave


def _send_slowly(data: bytes, first: int) -> Behave:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data[:first])
        for byte in data[first:]:
            if over.wait(0.2):
                return
            connection.sendall(bytes([byte]))

    return behave


def _endless(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not over.is_set():
        connection.sendall(bytes(65_536))


def _silent(_connection: socket.socket, over: threading.Event) -> None:
    over.wait(60)


MISBEHAVIOURS: dict[str, Behave] = {
    "truncated": _send(_answer("200 OK", PACKAGE[:50], length=len(PACKAGE))),
    "length too small": _send(_answer("200 OK", PACKAGE, length=10)),
    "length that is no number": _send(_answer("200 OK", PACKAGE).replace(b"Length: ", b"Length: x")),
    "negative length": _send(_answer("200 OK", PACKAGE, length=-5)),
    "huge length": _send(_answer("200 OK", PACKAGE, length=2**62)),
    "wrong bytes": _send(_answer("200 OK", PACKAGE[::-1])),
    "larger than allowed": _send(_answer("200 OK", bytes(LIMIT_BYTES + 1))),
    "endless body": _endless,
    "gzip bomb": _send(_answer("200 OK", gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip")),
    "invalid gzip": _send(_answer("200 OK", b"\x1f\x8bnonsense", "Content-Encoding: gzip")),
    "redirect to itself": _send(_answer("302 Found", b"", "Location: /again")),
    "redirect to a file": _send(_answer("302 Found", b"", "Location: file:///etc/passwd")),
    "redirect to a file, 307": _send(_answer("307 Temporary Redirect", b"", "Location: file:///etc/passwd")),
    "redirect to nowhere": _send(_answer("302 Found", b"", "Location: http://127.0.0.1:1/x")),
    "redirect without a location": _send(_answer("302 Found")),
    "slow headers": _send_slowly(_answer("200 OK", PACKAGE), 5),
    "slow body": _send_slowly(_answer("200 OK", PACKAGE), 120),
    "sends nothing": _silent,
    "not HTTP": _send(b"\x00\x01\x02 hello\r\n\r\n"),
    "endless headers": _send(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(50_000))),
    "bad chunks": _send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"),
    "chunk cut short": _send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc"),
    "not found": _send(_answer("404 Not Found", b"no")),
    "forbidden": _send(_answer("403 Forbidden", b"no")),
    "internal error": _send(_answer("500 Internal Server Error", b"oops")),
    "closes the connection": _send(b""),
}


class Server:
    """Listens on loopback and calls ``behave`` for every connection."""

    def __init__(self) -> None:
        self.behave: Behave = _silent
        self.over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection, self.behave), daemon=True).start()

    def _handle(self, connection: socket.socket, behave: Behave) -> None:
        with connection:
            try:
                connection.settimeout(30)
                connection.recv(65_536)
                behave(connection, self.over)
            except OSError:
                pass  # The agent closed the connection.

    def close(self) -> None:
        self.over.set()
        self._listening.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages") / "cache"


@pytest.fixture(scope="module")
def packages(cache: Path) -> Iterator[PackageCache]:
    packages = PackageCache(
        cache,
        [],
        stored=MemoryPackages(),
        bytes_max=10**6,
        package_bytes_max=LIMIT_BYTES,
        timeout_s=TIMEOUT_S,
        retry_s=0.01,
    )
    yield packages
    packages.close()


def fetch(
    packages: PackageCache, server: Server, behave: Behave, sha256: str
) -> tuple[FetchedPackage, float]:
    server.behave = behave
    answers: queue.Queue[FetchedPackage] = queue.Queue()
    began_s = time.monotonic()
    packages.request(PackageId(source=f"{server.url}/p.tar", version="1", sha256=sha256), answers.put)
    answer = answers.get(timeout=3 * (TIMEOUT_S + 10) + SLACK_S)
    return answer, time.monotonic() - began_s


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
def test_fetch_from_a_misbehaving_server_fails_in_time_and_nothing_is_cached(
    packages: PackageCache, cache: Path, server: Server, misbehaviour: str
) -> None:
    answer, took_s = fetch(packages, server, MISBEHAVIOURS[misbehaviour], hashlib.sha256(PACKAGE).hexdigest())
    assert answer.fd == -1
    assert answer.error
    assert "Traceback" not in answer.error and len(answer.error) < 400
    assert took_s < 3 * TIMEOUT_S + SLACK_S
    assert os.listdir(cache) == []


def test_package_of_a_correct_server_is_fetched(packages: PackageCache, cache: Path, server: Server) -> None:
    answer, _ = fetch(
        packages, server, _send(_answer("200 OK", PACKAGE)), hashlib.sha256(PACKAGE).hexdigest()
    )
    assert answer.error == ""
    with os.fdopen(answer.fd, "rb") as got:
        assert got.read() == PACKAGE
    for name in os.listdir(cache):
        os.unlink(cache / name)


@examples(12, slow_s=PROCESSES_S)
@given(
    cut=st.integers(0, 200),
    flip=st.binary(max_size=8),
    skip=st.integers(0, 8),
)
def test_corrupted_answer_is_never_accepted_as_the_package(
    packages: PackageCache, cache: Path, server: Server, cut: int, flip: bytes, skip: int
) -> None:
    good = _answer("200 OK", PACKAGE)
    corrupted = good[:cut] + flip + good[cut + skip :]
    answer, _ = fetch(packages, server, _send(corrupted), hashlib.sha256(PACKAGE).hexdigest())
    if answer.fd >= 0:
        with os.fdopen(answer.fd, "rb") as got:
            assert got.read() == PACKAGE
    else:
        assert answer.error
        assert os.listdir(cache) == []
    for name in os.listdir(cache):
        os.unlink(cache / name)
