"""Secret files that a job file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.client.secret_files import read_files, secret_of
from galaxy.errors import SpecError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import SECRET_BYTES_MAX, Secret


def job(**files: str) -> JobSpec:
    env = {name: {"file": path} for name, path in files.items()}
    task = {"cpu": 1, "memory": "16M", "start": "run", "env": env | {"PLAIN": "x", "NAMED": {"secret": "s"}}}
    return parsing.load({"name": "web", "pod": {"tasks": [task]}})


def test_files_are_read_relative_to_the_job_file_without_their_last_newline(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1\n")
    (tmp_path / "two").write_bytes(b"2\n\n")
    (tmp_path / "three").write_bytes(b"3\r\n")
    read = read_files(job(A="one", B="./two", C="three", D="one"), base=tmp_path)
    assert read == {"one": Secret(text="1"), "./two": Secret(text="2\n"), "three": Secret(text="3")}


def test_every_file_that_cannot_be_read_is_named_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "bytes").write_bytes(b"s3cr3t\xff")
    (tmp_path / "zero").write_bytes(b"s3cr3t\0")
    spec = job(A="long", B="empty", C="bytes", D="zero", E="none", F=".")
    with pytest.raises(SpecError) as caught:
        read_files(spec, base=tmp_path)
    assert len(caught.value.details) == 6
    for line, cause in zip(
        caught.value.details,
        ("is longer than 64 KiB", "is empty", "is not text", "zero byte", "No such file", "Is a directory"),
        strict=True,
    ):
        assert line.startswith("`pod.tasks[0].env.") and cause in line
    assert "s3cr3t" not in str(caught.value)


def test_value_of_exactly_the_maximum_length_is_accepted() -> None:
    assert secret_of(b"x" * SECRET_BYTES_MAX + b"\n", "it") == Secret(text="x" * SECRET_BYTES_MAX)


def test_unknown_home_folder_is_a_spec_error(tmp_path: Path) -> None:
    spec = job(A="~nobody-of-this-name/x")
    with pytest.raises(SpecError) as caught:
        read_files(spec, base=tmp_path)
    assert "no such home folder" in caught.value.details[0]
