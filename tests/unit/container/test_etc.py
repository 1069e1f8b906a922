"""The /etc of a container has names for its user and no secret of the host."""

from __future__ import annotations

import os
from pathlib import Path

from galaxy.container.fs import etc


def test_etc_has_name_files_and_no_secret_of_the_host(tmp_path: Path) -> None:
    etc.write(str(tmp_path))
    names = set(os.listdir(tmp_path))
    assert {"passwd", "group", "hosts", "nsswitch.conf"} <= names
    assert not names & {"shadow", "gshadow", "sudoers", "ssh", "machine-id"}


def test_user_of_a_container_has_a_name_and_the_workspace_as_home(tmp_path: Path) -> None:
    etc.write_own(str(tmp_path), "web-0", uid=1_000_017, gid=1_000_017, home="/home/web")
    assert "galaxy:x:1000017:1000017:galaxy:/home/web:/bin/sh\n" in (tmp_path / "passwd").read_text()
    assert "galaxy:x:1000017:\n" in (tmp_path / "group").read_text()
    assert "web-0" in (tmp_path / "hosts").read_text()


def test_workspace_path_with_a_newline_adds_no_user_to_passwd(tmp_path: Path) -> None:
    etc.write_own(str(tmp_path), "web-0", uid=1000, gid=1000, home="/a\nroot2:x:0:0::/:/bin/sh")
    assert "root2" not in (tmp_path / "passwd").read_text()
