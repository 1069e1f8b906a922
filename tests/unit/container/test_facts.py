"""Facts about processes, small files, garbage and sparse copies: nothing here needs root."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from galaxy.container.fs import etc, garbage, volumes
from galaxy.container.kernel import processes
from galaxy.container.launcher import process_group
from galaxy.container.launcher.protocol import Ended, InitRecord
from galaxy.container.record_file import load_record, save_record


def test_start_ticks_tell_a_process_and_nobody_apart() -> None:
    assert processes.start_ticks(os.getpid()) > 0
    assert processes.start_ticks(2**22 + 1) == 0


def test_zombie_counts_as_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert processes.start_ticks(pid) == 0
    finally:
        os.waitpid(pid, 0)


def test_what_was_kept_is_recalled_and_rubbish_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "ended.json")
    noun = Ended(container="a-000000.0", incarnation=3, status=-9, oom=True)
    save_record(path, noun)
    assert load_record(path, Ended) == noun
    assert load_record(path, InitRecord) is None
    assert load_record(str(tmp_path / "none"), Ended) is None
    Path(path).write_text("{")
    assert load_record(path, Ended) is None


def test_family_is_killed_to_the_grandchildren_and_its_head_is_spared() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sh -c 'sleep 60 & wait' & echo up; read x"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as head:  # fmt: skip
        try:
            assert head.stdout is not None and head.stdout.readline() == b"up\n"
            assert processes.descendants(head.pid)
            os.kill(head.pid, signal.SIGSTOP)
            process_group.kill_descendants(head.pid)
            assert processes.descendants(head.pid) == []
            assert processes.start_ticks(head.pid) > 0
        finally:
            head.kill()


def test_strays_are_known_by_their_workspace(tmp_path: Path) -> None:
    environment = {"GALAXY_WORKSPACE": f"{tmp_path}/c/x_1/v0"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as stray:
        try:
            assert not process_group.kill_strays(f"{tmp_path}/c/x_2")
            assert stray.poll() is None
            assert process_group.kill_strays(f"{tmp_path}/c/x_1")
            assert stray.wait(timeout=10) == -signal.SIGKILL
        finally:
            stray.kill()


def test_garbage_goes_away_without_following_links(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    rubbish = tmp_path / "c" / "x_1"
    (rubbish / "deep" / "deeper").mkdir(parents=True)
    (rubbish / "deep" / "file").write_text("x")
    (rubbish / "link").symlink_to(tmp_path)
    garbage.discard(str(rubbish), str(tmp_path / "garbage"))
    assert not rubbish.exists()
    assert garbage.has_garbage(str(tmp_path / "garbage"))
    cleaner = garbage.GarbageCleaner(str(tmp_path / "garbage"))
    cleaner.start()
    assert select.select([cleaner], [], [], 10.0)[0]
    assert cleaner.finish()
    assert not garbage.has_garbage(str(tmp_path / "garbage"))
    assert kept.read_text() == "mine"
    cleaner.close()


def test_discarding_what_is_not_there_is_fine(tmp_path: Path) -> None:
    garbage.discard(str(tmp_path / "none"), str(tmp_path / "garbage"))
    assert not garbage.has_garbage(str(tmp_path / "garbage"))


@pytest.mark.skipif(volumes.mkfs_tool() is None, reason="mkfs.ext4 is not installed")
def test_disk_template_has_its_size_and_is_made_once(tmp_path: Path) -> None:
    size = 4 << 20
    path = volumes.make_template(str(tmp_path), size)
    assert os.stat(path).st_size == size
    assert os.stat(path).st_blocks * 512 < size // 4  # Sparse: cheap to copy.
    again = volumes.make_template(str(tmp_path), size)
    assert (again, os.listdir(tmp_path)) == (path, [os.path.basename(path)])


def test_private_etc_has_names_and_no_secret(tmp_path: Path) -> None:
    etc.write(str(tmp_path))
    names = set(os.listdir(tmp_path))
    assert {"passwd", "group", "hosts", "nsswitch.conf"} <= names
    assert not names & {"shadow", "gshadow", "sudoers", "ssh", "machine-id"}


def test_user_of_a_container_has_a_name_and_its_workspace_for_home(tmp_path: Path) -> None:
    etc.write_own(str(tmp_path), "web-0", uid=1_000_017, gid=1_000_017, home="/home/web")
    assert "galaxy:x:1000017:1000017:galaxy:/home/web:/bin/sh\n" in (tmp_path / "passwd").read_text()
    assert "galaxy:x:1000017:\n" in (tmp_path / "group").read_text()
    assert "web-0" in (tmp_path / "hosts").read_text()


def test_odd_path_of_a_workspace_adds_no_line_to_passwd(tmp_path: Path) -> None:
    etc.write_own(str(tmp_path), "web-0", uid=1000, gid=1000, home="/a\nroot2:x:0:0::/:/bin/sh")
    assert "root2" not in (tmp_path / "passwd").read_text()
