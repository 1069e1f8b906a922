"""Everything of a destroyed container is deleted eventually, even if the first attempt fails."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from galaxy.container.kernel import processes
from tests.e2e.container.polling import process_name, wait_until

pytestmark = pytest.mark.root


def cleaner_of(host) -> int:
    """Create garbage, which starts the cleaner; return the cleaner's pid."""
    plan = host.plan(90)
    host.launch(plan)
    host.destroy(plan)
    launcher = host.launcher_pid()

    def found() -> list[int]:
        return [pid for pid in processes.descendants(launcher) if process_name(pid) == "galaxy-cleaner"]

    wait_until(lambda: len(found()) == 1)
    return found()[0]


def test_garbage_of_a_cleaner_that_was_killed_is_deleted_by_the_next(host) -> None:
    plan = host.plan(0)
    host.launch(plan)
    pid = cleaner_of(host)
    wait_until(lambda: not os.listdir(host.state / "garbage"))
    os.kill(pid, signal.SIGSTOP)
    host.destroy(plan)
    assert os.listdir(host.state / "garbage")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.listdir(host.state / "garbage"))


def test_garbage_that_could_not_be_deleted_is_deleted_once_that_is_possible(host) -> None:
    mounted = host.state / "garbage" / "mounted"
    mounted.mkdir()
    inside = ["nsenter", "--mount", "--target", str(host.launcher_pid())]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "none", str(mounted)], check=True)
    try:
        cleaner_of(host)
        wait_until(lambda: os.listdir(host.state / "garbage") == ["mounted"])
    finally:
        subprocess.run([*inside, "umount", str(mounted)], check=True)
    wait_until(lambda: not os.listdir(host.state / "garbage"))
