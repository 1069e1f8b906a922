"""``cluster.json``, and the processes that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from galaxy.client.cluster_file import ClusterFile, ProcessRef, read_cluster, write_cluster
from galaxy.errors import GalaxyError


def test_cluster_file_reads_back_as_written_and_leaves_no_scratch_file(tmp_path: Path) -> None:
    process = ProcessRef(name="agent", pid=7, start_ticks=99)
    cluster = ClusterFile(dir=str(tmp_path), url="redis://h", processes=(process,), started_s=1.5)
    write_cluster(cluster)
    assert read_cluster(tmp_path) == cluster
    assert [entry.name for entry in tmp_path.iterdir()] == ["cluster.json"]


def test_folder_without_cluster_file_has_no_cluster(tmp_path: Path) -> None:
    assert read_cluster(tmp_path) is None
    assert read_cluster(tmp_path / "gone") is None


def test_damaged_cluster_file_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(GalaxyError, match=r"cluster\.json"):
        read_cluster(tmp_path)


def test_process_reference_tells_a_process_from_a_later_one_with_its_pid() -> None:
    own = ProcessRef.of("me", os.getpid())
    assert own.is_running()
    assert not ProcessRef(name="me", pid=own.pid, start_ticks=own.start_ticks + 1).is_running()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ref = ProcessRef.of("child", child.pid)
    assert ref.is_running()
    child.communicate(b"\n")
    assert not ref.is_running()
    assert not ProcessRef.of("child", child.pid).is_running()
