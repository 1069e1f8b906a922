"""Templates of disk volumes: empty file systems that are copied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from galaxy.container.fs import volumes


@pytest.mark.skipif(volumes.mkfs_tool() is None, reason="mkfs.ext4 is not installed")
def test_template_of_a_disk_volume_has_its_size_and_is_created_once(tmp_path: Path) -> None:
    size = 4 << 20
    path = volumes.make_template(str(tmp_path), size)
    assert os.stat(path).st_size == size
    assert os.stat(path).st_blocks * 512 < size // 4  # Sparse, so that a copy is cheap.
    again = volumes.make_template(str(tmp_path), size)
    assert (again, os.listdir(tmp_path)) == (path, [os.path.basename(path)])
