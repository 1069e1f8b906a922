"""A large package says how far it has been sent; a small one says nothing."""

from __future__ import annotations

import pytest

from galaxy.cli.job.package import print_upload
from galaxy.client.package_staging import PackageFile
from galaxy.model.stored.package import CHUNK_BYTES
from galaxy.units import MIB


def told(capsys: pytest.CaptureFixture[str], size_bytes: int) -> list[str]:
    file = PackageFile(path="/x/app.tar.gz", sha256="0" * 64, size_bytes=size_bytes)
    for sent in range(CHUNK_BYTES, size_bytes + CHUNK_BYTES, CHUNK_BYTES):
        print_upload(file, min(sent, size_bytes))
    return capsys.readouterr().err.splitlines()


def test_large_package_is_told_at_most_a_dozen_times_and_to_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = told(capsys, 100 * MIB)
    assert 10 <= len(lines) <= 12
    assert lines[0] == "sending app.tar.gz: 0 % of 100 MiB"
    assert lines[-1] == "sending app.tar.gz: 100 % of 100 MiB"


def test_small_package_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, 10 * MIB) == []
