"""Package files that a job names by path are stored in the cluster, or refused with their field."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from galaxy.client.job_loading import load
from galaxy.client.package_staging import PackageFile, read_package, stage
from galaxy.errors import SpecError
from galaxy.model.api.views import PackageView
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
def base(tmp_path: Path) -> Path:
    """A folder with a package, as a job file's."""
    base = tmp_path / "my job"
    (base / "build").mkdir(parents=True)
    (base / "build" / "app-1.0.tar.gz").write_bytes(DATA)
    return base


class Stored:
    """A cluster that stores what it is given. ``files`` are in the order in which they came."""

    def __init__(self) -> None:
        self.files: list[PackageFile] = []

    def __call__(self, file: PackageFile) -> PackageView:
        self.files.append(file)
        return PackageView(
            package="f" * 32, source=f"galaxy://{'f' * 32}/{file.name}", name=file.name, user="ann",
            sha256=file.sha256, size_bytes=file.size_bytes, stored=True,
        )  # fmt: skip


def test_path_becomes_the_source_of_a_stored_package_with_its_digest(base: Path) -> None:
    stored = Stored()
    package = package_of(stage(job("build/app-1.0.tar.gz"), base=base, store=stored))
    assert (package.source, package.sha256) == (f"galaxy://{'f' * 32}/app-1.0.tar.gz", SHA)
    path = str(base / "build" / "app-1.0.tar.gz")
    assert stored.files == [PackageFile(path=path, sha256=SHA, size_bytes=len(DATA))]


@pytest.mark.parametrize(
    "source", ["https://host/app.tar.gz", "file:///srv/app.tar.gz", f"galaxy://{'a' * 32}/x"]
)
def test_url_is_left_unchanged(base: Path, source: str) -> None:
    spec, stored = job(source), Stored()
    assert stage(spec, base=base, store=stored) is spec
    assert stored.files == []


def test_data_packages_are_stored_as_well(base: Path) -> None:
    data = {"packages": [{"source": "build/app-1.0.tar.gz", "version": "1", "path": "data"}]}
    task = {"cpu": 1, "memory": "16M", "start": "run", "data": data}
    staged = stage(parsing.load({"name": "web", "pod": {"tasks": [task]}}), base=base, store=Stored())
    assert staged.pod.tasks[0].data is not None
    assert staged.pod.tasks[0].data.packages[0].sha256 == SHA


def test_name_for_people_is_short_and_has_no_control_characters() -> None:
    file = PackageFile(path="/x/" + "a" * 300 + "\n\x1b.tgz", sha256=SHA, size_bytes=1)
    assert len(file.name) == 128
    assert file.name.endswith("a__.tgz")


# ---- refusals


def broken(base: Path, kind: str) -> str:
    """Make a file that is no package, and return its path in the job file."""
    path = base / "build" / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    return f"build/{kind}"


KINDS = {
    "missing": "No such file",
    "dangling link": "No such file",
    "folder": "tar -czf folder.tar.gz -C",
    "empty": "is not empty",
    "pipe": "not a regular file",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_package_is_refused_with_its_field_before_anything_is_stored(
    base: Path, kind: str
) -> None:
    good = {"cpu": 1, "memory": "16M", "start": "run", "name": "good"}
    good |= {"package": {"source": "build/app-1.0.tar.gz", "version": "1"}}
    bad = good | {"name": "bad", "package": {"source": broken(base, kind), "version": "1", "path": "b"}}
    stored = Stored()
    with pytest.raises(SpecError) as caught:
        stage(parsing.load({"name": "web", "pod": {"tasks": [good, bad]}}), base=base, store=stored)
    (detail,) = caught.value.details
    assert detail.startswith("`pod.tasks[1].package.source`: ")
    assert KINDS[kind] in detail
    assert stored.files == []
    with pytest.raises(SpecError, match=re.escape(KINDS[kind])):
        read_package(base / "build" / kind)


def test_wrong_digest_is_refused_with_its_field(base: Path) -> None:
    stored = Stored()
    with pytest.raises(SpecError) as caught:
        stage(job("build/app-1.0.tar.gz", sha256="0" * 64), base=base, store=stored)
    (detail,) = caught.value.details
    assert detail == f'`pod.tasks[0].package.sha256`: package "build/app-1.0.tar.gz" has checksum {SHA}'
    assert stored.files == []


def test_job_file_whose_files_are_missing_is_refused_with_line_field_and_path(base: Path) -> None:
    """Both kinds of files that a job file names: packages, and values of variables."""
    (base / "job.yaml").write_text(
        "name: web\npod:\n  tasks:\n    - cpu: 1\n      memory: 16M\n      start: run\n"
        "      env: {TOKEN: {file: ./token}}\n"
        "      package:\n        source: build/none.tgz\n        version: v1\n"
    )
    with pytest.raises(SpecError) as caught:
        load(str(base / "job.yaml"))
    token, package = caught.value.details
    assert "job.yaml:7:" in token
    assert f"{base}/token" in token
    assert f"{base}/job.yaml:9:" in package
    assert "`pod.tasks[0].package.source`" in package
    assert f"{base}/build/none.tgz" in package


def test_paths_are_relative_to_the_job_file_and_not_to_the_working_directory(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (base / "job.json").write_text(
        '{"name": "web", "pod": {"tasks": [{"cpu": 1, "memory": "16M", "start": "run",'
        ' "package": {"source": "build/app-1.0.tar.gz", "version": "1"}}]}}'
    )
    monkeypatch.chdir(tmp_path)
    _, folder = load("my job/job.json")
    assert folder == Path("my job")
