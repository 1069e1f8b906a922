"""Package files are copied into the folder from which the agents of a local cluster read them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from galaxy.client.package_staging import RECENT_S, sources_of, stage, unneeded
from galaxy.errors import GalaxyError, SpecError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.spec import JobSpec, PackageSpec

DATA = b"the bytes of an archive"
SHA = hashlib.sha256(DATA).hexdigest()


def job(source: str, **package: str) -> JobSpec:
    task = {
        "cpu": 1,
        "memory": "16M",
        "start": "run",
        "package": {"source": source, "version": "1"} | package,
    }
    return parsing.load({"name": "web", "pod": {"tasks": [task]}})


def package_of(spec: JobSpec) -> PackageSpec:
    package = spec.pod.tasks[0].package
    assert package is not None
    return package


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    base, cluster = tmp_path / "my job", tmp_path / "cluster dir"
    (base / "build").mkdir(parents=True)
    cluster.mkdir()
    (base / "build" / "app-1.0.tar.gz").write_bytes(DATA)
    return base, cluster


def test_relative_path_becomes_the_url_of_a_copy_named_after_its_digest(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    package = package_of(stage(job("build/app-1.0.tar.gz"), base=base, cluster_dir=str(cluster)))
    assert package.sha256 == SHA
    assert package.source == f"file://{cluster}/packages/{SHA}.tar.gz".replace(" ", "%20")
    assert Path(unquote(package.source.removeprefix("file://"))).read_bytes() == DATA


def test_equal_packages_share_one_file_and_no_scratch_file_is_left(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    for _ in range(2):
        stage(job("build/app-1.0.tar.gz"), base=base, cluster_dir=str(cluster))
    assert [entry.name for entry in (cluster / "packages").iterdir()] == [f"{SHA}.tar.gz"]


def test_url_is_left_unchanged(folders: tuple[Path, Path]) -> None:
    spec = job("https://host/app.tar.gz")
    assert stage(spec, base=folders[0], cluster_dir="") is spec


def test_missing_package_is_an_error_with_its_absolute_path(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    with pytest.raises(SpecError, match="No such file") as caught:
        stage(job("build/none.tar.gz"), base=base, cluster_dir=str(cluster))
    assert str(base / "build" / "none.tar.gz") in caught.value.details[0]


def test_folder_is_refused_with_the_command_that_makes_an_archive(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    with pytest.raises(SpecError, match="folder") as caught:
        stage(job("build"), base=base, cluster_dir=str(cluster))
    assert "tar -czf" in caught.value.hint


def test_wrong_digest_is_refused_and_leaves_no_file(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    with pytest.raises(SpecError, match="sha256"):
        stage(job("build/app-1.0.tar.gz", sha256="0" * 64), base=base, cluster_dir=str(cluster))
    assert list((cluster / "packages").iterdir()) == []


def test_local_file_for_a_remote_cluster_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(GalaxyError, match="cannot bring") as caught:
        stage(job("build/app-1.0.tar.gz"), base=folders[0], cluster_dir="")
    assert "http://" in caught.value.hint


def test_data_packages_are_staged_as_well(folders: tuple[Path, Path]) -> None:
    base, cluster = folders
    data = {"packages": [{"source": "build/app-1.0.tar.gz", "version": "1", "path": "data"}]}
    task = {"cpu": 1, "memory": "16M", "start": "run", "data": data}
    spec = stage(parsing.load({"name": "web", "pod": {"tasks": [task]}}), base=base, cluster_dir=str(cluster))
    staged = spec.pod.tasks[0].data
    assert staged is not None
    assert staged.packages[0].sha256 == SHA


def staged(cluster: Path, sizes: dict[str, int], *, age_s: float) -> list[Path]:
    """Write packages of these sizes in bytes, one second apart, the first ``age_s`` before now (10**6)."""
    (cluster / "packages").mkdir(exist_ok=True)
    paths = [cluster / "packages" / name for name in sizes]
    for index, path in enumerate(paths):
        path.write_bytes(bytes(sizes[path.name]))
        os.utime(path, (0, 10**6 - age_s + index))
    return paths


def test_oldest_unused_packages_are_removed_until_the_rest_fits(folders: tuple[Path, Path]) -> None:
    cluster = folders[1]
    paths = staged(cluster, {"a.tar": 40, "b.tar": 40, "c.tar": 40, "d.tar": 40}, age_s=2 * RECENT_S)
    used = list(sources_of(job(f"file://{paths[0]}")))
    found = unneeded(str(cluster), lambda: used, now_s=10**6, bytes_max=100)
    assert found == [paths[1], paths[2]]


def test_recent_packages_are_kept_beyond_the_limit(folders: tuple[Path, Path]) -> None:
    cluster = folders[1]
    staged(cluster, {"a.tar": 40, "b.tar": 40}, age_s=RECENT_S / 2)
    assert unneeded(str(cluster), list, now_s=10**6, bytes_max=10) == []


def test_sources_are_not_read_while_the_limit_is_not_exceeded(folders: tuple[Path, Path]) -> None:
    cluster = folders[1]
    staged(cluster, {"a.tar": 40}, age_s=2 * RECENT_S)

    def used() -> list[str]:
        raise AssertionError("sources were read")

    assert unneeded(str(cluster), used, now_s=10**6, bytes_max=40) == []
    assert unneeded(str(cluster / "none"), used, now_s=10**6, bytes_max=0) == []
