"""What is left of containers is deleted in the end, whatever its first try came to."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from galaxy.container.kernel import processes
from tests.e2e.container.looking import name, wait_until

pytestmark = pytest.mark.root


def janitor(host) -> int:
    """Return the pid of the janitor, which the first garbage brings to life."""
    plan = host.plan(90)
    host.launch(plan)
    host.destroy(plan)
    launcher = host.launcher_pid()

    def found() -> list[int]:
        return [pid for pid in processes.descendants(launcher) if name(pid) == "galaxy-cleaner"]

    wait_until(lambda: len(found()) == 1)
    return found()[0]


def test_garbage_of_a_janitor_that_died_over_it_is_deleted_by_the_next(host) -> None:
    plan = host.plan(0)
    host.launch(plan)
    pid = janitor(host)
    wait_until(lambda: not os.listdir(host.state / "garbage"))
    os.kill(pid, signal.SIGSTOP)
    host.destroy(plan)
    assert os.listdir(host.state / "garbage")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.listdir(host.state / "garbage"))


def test_garbage_that_resisted_is_deleted_once_it_does_not(host) -> None:
    stubborn = host.state / "garbage" / "stubborn"
    stubborn.mkdir()
    inside = ["nsenter", "--mount", "--target", str(host.launcher_pid())]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "none", str(stubborn)], check=True)
    try:
        janitor(host)
        wait_until(lambda: os.listdir(host.state / "garbage") == ["stubborn"])
    finally:
        subprocess.run([*inside, "umount", str(stubborn)], check=True)
    wait_until(lambda: not os.listdir(host.state / "garbage"))
