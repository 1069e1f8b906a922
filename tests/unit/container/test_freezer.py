"""The v1 freezer: it stops processes while they are killed, and lets them take the signal."""

from __future__ import annotations

from pathlib import Path

from galaxy.container.cgroup.files import Files
from galaxy.container.cgroup.freezer import freeze, thaw


def test_cgroup_is_frozen_and_thawed(tmp_path: Path) -> None:
    state = tmp_path / "freezer.state"
    state.write_text("THAWED\n")
    assert freeze(Files(), str(tmp_path))
    assert state.read_text().strip() == "FROZEN"
    thaw(Files(), str(tmp_path))
    assert state.read_text().strip() == "THAWED"


def test_cgroup_that_is_gone_is_not_frozen(tmp_path: Path) -> None:
    gone = str(tmp_path / "none")
    assert not freeze(Files(), gone)
    thaw(Files(), gone)
