"""The package cache: refusals, shared fetches and eviction."""

from __future__ import annotations

import hashlib
import http.server
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from galaxy.agent.packages.cache import FetchedPackage, PackageCache
from galaxy.agent.packages.sources import PackageId
from tests.support.stored_packages import MemoryPackages

ARCHIVE = b"stands for an archive " * 1000
SHA = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "app.tar.gz").write_bytes(ARCHIVE)
    return root


@pytest.fixture
def stored() -> MemoryPackages:
    return MemoryPackages()


@pytest.fixture
def packages(tmp_path: Path, root: Path, stored: MemoryPackages) -> Iterator[PackageCache]:
    made = make(tmp_path, root, stored)
    yield made
    made.close()


def make(
    tmp_path: Path,
    root: Path,
    stored: MemoryPackages,
    bytes_max: int = 10**9,
    package_bytes_max: int = 10**8,
) -> PackageCache:
    return PackageCache(
        tmp_path / "cache",
        [root],
        stored=stored,
        bytes_max=bytes_max,
        package_bytes_max=package_bytes_max,
        timeout_s=10.0,
        retry_s=0.01,
    )


def get(packages: PackageCache, source: str, sha256: str = "", version: str = "1") -> FetchedPackage:
    answers: queue.Queue[FetchedPackage] = queue.Queue()
    packages.request(PackageId(source=source, version=version, sha256=sha256), answers.put)
    return answers.get(timeout=30)


def read(fetched: FetchedPackage) -> bytes:
    assert fetched.error == ""
    with open(fetched.fd, "rb") as reader:
        return reader.read()


def test_file_below_a_root_is_handed_out_read_only(packages: PackageCache, root: Path) -> None:
    fetched = get(packages, f"file://{root}/app.tar.gz", SHA)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fetched.fd, b"x")
    assert read(fetched) == ARCHIVE


def test_each_receiver_has_a_file_position_of_its_own(packages: PackageCache, root: Path) -> None:
    first, second = (get(packages, f"file://{root}/app.tar.gz", SHA) for _ in range(2))
    assert read(first) == read(second) == ARCHIVE


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("file:///etc/passwd", "not below a package root"),
        ("/etc/passwd", "not below a package root"),
        ("file://ROOT/../secret", "not below a package root"),
        ("file://ROOT/link", "not below a package root"),
        ("file://elsewhere/etc/passwd", "names the host 'elsewhere'"),
        ("app.tar.gz", "not a URL"),
        ("ssh://host/app.tar.gz", "only http, https, ftp, s3, hdfs, file"),
        ("simplecache::file:///etc/passwd", "not a URL"),
        ("http::file:///etc/passwd", "not a URL"),
        ("http://x/y::file:///etc/passwd", "without chains"),
        ("file://ROOT/%2e%2e/secret", "not below a package root"),
    ],
)
def test_source_that_is_not_allowed_is_refused_for_good(
    packages: PackageCache, root: Path, source: str, why: str
) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "link").symlink_to("/etc/passwd")
    fetched = get(packages, source.replace("ROOT", str(root)))
    assert why in fetched.error
    assert not fetched.retry
    assert fetched.fd == -1


def test_link_inside_the_root_is_followed(packages: PackageCache, root: Path) -> None:
    (root / "latest").symlink_to("app.tar.gz")
    assert read(get(packages, f"file://{root}/latest")) == ARCHIVE


def test_wrong_digest_is_refused_with_both(packages: PackageCache, root: Path) -> None:
    fetched = get(packages, f"file://{root}/app.tar.gz", "0" * 64)
    assert SHA in fetched.error
    assert "0" * 64 in fetched.error
    assert not fetched.retry
    assert not list((root.parent / "cache").iterdir())


def test_too_large_a_package_is_refused(tmp_path: Path, root: Path, stored: MemoryPackages) -> None:
    packages = make(tmp_path, root, stored, package_bytes_max=100)
    assert "larger than the limit" in get(packages, f"file://{root}/app.tar.gz").error
    packages.close()


def test_missing_file_says_so(packages: PackageCache, root: Path) -> None:
    fetched = get(packages, f"file://{root}/none.tar.gz")
    assert "No such file" in fetched.error
    assert not fetched.retry


def test_fifo_below_the_root_does_not_hang(packages: PackageCache, root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert "not a regular file" in get(packages, f"file://{root}/pipe").error


def test_cached_package_needs_its_source_no_more(packages: PackageCache, root: Path) -> None:
    read(get(packages, f"file://{root}/app.tar.gz", SHA))
    (root / "app.tar.gz").unlink()
    assert read(get(packages, f"file://{root}/app.tar.gz", SHA)) == ARCHIVE


def test_file_without_digest_is_read_again_when_it_changed(packages: PackageCache, root: Path) -> None:
    assert read(get(packages, f"file://{root}/app.tar.gz")) == ARCHIVE
    (root / "app.tar.gz").write_bytes(b"new")
    assert read(get(packages, f"file://{root}/app.tar.gz")) == b"new"


def test_least_recently_used_goes_first_when_the_cache_is_full(
    tmp_path: Path, root: Path, stored: MemoryPackages
) -> None:
    packages = make(tmp_path, root, stored, bytes_max=2 * len(ARCHIVE) + 100)
    shas = []
    for index in range(3):
        data = bytes([index]) + ARCHIVE[1:]
        (root / f"{index}").write_bytes(data)
        shas.append(hashlib.sha256(data).hexdigest())
    for index in (0, 1, 0, 2):
        read(get(packages, f"file://{root}/{index}", shas[index]))
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == {shas[0], shas[2]}
    packages.close()


@pytest.mark.parametrize(
    ("source", "elsewhere"),
    [
        ("file:///etc/passwd", True),
        ("file://ROOT/none.tar.gz", True),
        ("file://ROOT", True),
        ("file://elsewhere/etc/passwd", False),
        ("app.tar.gz", False),
        ("ssh://host/app.tar.gz", False),
    ],
)
def test_refusal_says_whether_another_host_may_succeed(
    packages: PackageCache, root: Path, source: str, elsewhere: bool
) -> None:
    fetched = get(packages, source.replace("ROOT", str(root)))
    assert (fetched.retry, fetched.elsewhere) == (False, elsewhere)


# ---- stored by the cluster


def test_stored_package_is_read_once_for_the_host(packages: PackageCache, stored: MemoryPackages) -> None:
    source = stored.add(ARCHIVE)
    assert [read(get(packages, source, SHA)) for _ in range(3)] == [ARCHIVE] * 3
    stored.rows.clear()
    assert read(get(packages, source, SHA)) == ARCHIVE
    assert stored.reads == 1


def test_stored_package_is_not_given_to_who_knows_only_its_checksum(
    packages: PackageCache, stored: MemoryPackages, root: Path
) -> None:
    read(get(packages, stored.add(ARCHIVE), SHA))
    fetched = get(packages, f"file://{root}/none.tar.gz", SHA)
    assert "No such file" in fetched.error


def test_stored_package_that_is_gone_is_asked_for_again_later(
    packages: PackageCache, stored: MemoryPackages
) -> None:
    source = stored.add(ARCHIVE)
    rows, stored.rows = stored.rows, {}
    fetched = get(packages, source, SHA)
    assert "run or update the job again" in fetched.error
    assert fetched.retry
    stored.rows = rows
    assert read(get(packages, source, SHA)) == ARCHIVE


@pytest.mark.parametrize("damage", ["missing chunk", "other chunk", "not complete"])
def test_damaged_stored_package_is_refused_and_nothing_is_kept(
    packages: PackageCache, stored: MemoryPackages, tmp_path: Path, damage: str
) -> None:
    source = stored.add(ARCHIVE)
    ((package, row),) = stored.rows.items()
    if damage == "missing chunk":
        stored.chunks[package].pop()
    elif damage == "other chunk":
        stored.chunks[package][0] = bytes(len(stored.chunks[package][0]))
    else:
        stored.rows[package] = replace(row, stored=False)
    fetched = get(packages, source, SHA)
    assert fetched.error
    assert fetched.retry == (damage != "other chunk")
    assert not list((tmp_path / "cache").iterdir())


def test_stored_package_above_the_hosts_limit_is_refused(
    tmp_path: Path, root: Path, stored: MemoryPackages
) -> None:
    packages = make(tmp_path, root, stored, package_bytes_max=100)
    assert "larger than the limit" in get(packages, stored.add(ARCHIVE), SHA).error
    packages.close()


# ---- over http


class Server:
    """Counts requests; ``answer`` decides each."""

    def __init__(self) -> None:
        self.requests = 0
        self.answer: Callable[[http.server.BaseHTTPRequestHandler, int], None] = serve
        self.url = ""


def serve(request: http.server.BaseHTTPRequestHandler, _: int) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(ARCHIVE)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(ARCHIVE)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests += 1
            server.answer(self, server.requests)

        def log_message(self, *_: object) -> None:
            return

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join(5)


def test_package_over_http_is_fetched_once_for_many_who_want_it_at_once(packages: PackageCache) -> None:
    with serving() as server:
        results: list[bytes] = []
        asking = [
            threading.Thread(target=lambda: results.append(read(get(packages, f"{server.url}/a", SHA))))
            for _ in range(5)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(30)
        assert results == [ARCHIVE] * 5
        assert server.requests == 1


def test_server_that_fails_at_first_is_asked_again(packages: PackageCache) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            request.send_error(503)
        else:
            serve(request, number)

    with serving() as server:
        server.answer = answer
        assert read(get(packages, f"{server.url}/a", SHA)) == ARCHIVE
        assert server.requests == 2


def test_package_that_is_not_there_is_asked_for_once(packages: PackageCache) -> None:
    with serving() as server:
        server.answer = lambda request, _: request.send_error(404)
        fetched = get(packages, f"{server.url.replace('//', '//user:secret@')}/a")
        assert fetched.error
        assert "secret" not in fetched.error
        assert not fetched.retry
        assert server.requests == 1


def test_download_that_breaks_off_is_an_error_and_nothing_is_kept(
    packages: PackageCache, tmp_path: Path
) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler, _: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(ARCHIVE)))
        request.end_headers()
        request.wfile.write(ARCHIVE[:100])
        request.close_connection = True

    with serving() as server:
        server.answer = answer
        fetched = get(packages, f"{server.url}/a")
        assert fetched.error
        assert fetched.retry
        assert not list((tmp_path / "cache").iterdir())
