"""A request for a package from any source is answered with a file or with a reason."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.agent.packages.cache import FetchedPackage, PackageCache
from galaxy.agent.packages.sources import PackageId
from tests.property.effort import PROCESSES_S, examples
from tests.property.hostile_messages import NASTY
from tests.support.stored_packages import MemoryPackages

URLS = (
    "file://[x/y", "file://[::1", "file:///%00", "file:///etc/passwd", "file:///%2e%2e/etc/passwd", "file://h/x",
    "file://localhost/etc/passwd", "file://", "file:///", "FILE:///etc/shadow", "file:///proc/self/mem",
    "file:///dev/zero", "/dev/zero", "/proc/self/environ", "//etc/passwd", "relative", "", "::", "://",
    "a::b", "http://[", "zip://x::file:///etc/passwd", "simplecache::http://h/x", "javascript:x", "data:,x", "ssh://h/x",
    "file:///" + "a" * 5000, "file:///\x00", "file:///\n",
    "local:///etc/passwd", "memory://x", "github://a:b@c/x",
)  # fmt: skip
LOCAL = (
    st.sampled_from(URLS) | st.text(max_size=30).map(lambda text: f"file://{text}") | st.sampled_from(NASTY)
)


@dataclass(frozen=True)
class Site:
    """A package cache, its directory, and the only root that local packages may come from."""

    packages: PackageCache
    root: Path
    cache: Path

    def request(self, source: str, version: str = "1", sha256: str = "") -> FetchedPackage:
        answers: queue.Queue[FetchedPackage] = queue.Queue()
        self.packages.request(PackageId(source=source, version=version, sha256=sha256), answers.put)
        answer = answers.get(timeout=60)
        assert answers.empty()
        return answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("packages")
    root = top / "root"
    root.mkdir()
    (top / "secret").write_text("secret")
    (root / "out").symlink_to(top / "secret")
    (root / "etc").symlink_to("/etc")
    (root / "directory").mkdir()
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(bytes(20_000))
    packages = PackageCache(
        top / "cache",
        [root],
        stored=MemoryPackages(),
        bytes_max=10**6,
        package_bytes_max=10_000,
        timeout_s=5.0,
        retry_s=0.01,
    )
    yield Site(packages, root, top / "cache")
    packages.close()


@pytest.mark.parametrize("source", [url for url in URLS if not url.startswith("http")])
def test_unusual_source_is_refused_with_a_reason(site: Site, source: str) -> None:
    answer = site.request(source)
    assert answer.fd == -1
    assert answer.error


@examples(200, slow_s=PROCESSES_S)
@given(
    LOCAL.filter(lambda text: not text.startswith("http")),
    st.text(max_size=5).map(lambda text: text.encode("utf-8", "replace").decode()),
    st.sampled_from(["", "0" * 64, "x", "A" * 64, "../" * 10]),
)
def test_any_source_gets_one_answer_and_never_a_file_of_the_host(
    site: Site, source: str, version: str, sha256: str
) -> None:
    answer = site.request(source, version, sha256)
    assert answer.fd == -1, source
    assert answer.error


@pytest.mark.parametrize("name", ["out", "etc/passwd", "directory", "pipe", "large", "none"])
def test_path_below_the_root_that_is_no_package_is_refused_and_nothing_is_cached(
    site: Site, name: str
) -> None:
    answer = site.request(f"file://{site.root}/{name}")
    assert answer.fd == -1
    assert answer.error
    assert os.listdir(site.cache) == []


def test_package_with_a_wrong_checksum_is_not_cached(site: Site) -> None:
    (site.root / "good").write_bytes(b"good")
    answer = site.request(f"file://{site.root}/good", sha256="0" * 64)
    assert "sha256 is" in answer.error
    assert os.listdir(site.cache) == []
