"""A container born from a process made in advance is like any other container."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import signal

import pytest

from galaxy.container.kernel import processes
from galaxy.container.runtime import Launched, LauncherLost, LaunchFailed
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import VolumeDemand
from galaxy.units import MIB
from tests.e2e.container.looking import name, wait_until

pytestmark = pytest.mark.root


def spares(host, count: int) -> list[int]:
    """Wait until so many processes wait for a plan; return their pids."""

    def found() -> list[int]:
        living = {one.pid for one in host.runtime.running()}
        others = set(processes.descendants(host.launcher_pid())) - living
        return sorted(pid for pid in others if name(pid) == "galaxy-warm")

    seen: list[int] = []

    def enough() -> bool:
        seen[:] = found()
        return len(seen) == count

    wait_until(enough)
    return seen


def test_next_container_is_born_from_a_spare_with_all_its_walls_and_limits(host) -> None:
    host.launch(host.plan(0))
    waiting = spares(host, 2)
    plan = host.plan(1)
    launched = host.launch(plan)
    assert launched.pid in waiting
    script = "cat /proc/self/status; hostname; cat /etc/hostname; awk '{print $19}' /proc/self/stat"
    status = host.sh(plan, script)["out"]
    assert "CapBnd:\t00000000000001fb" in status and "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    *_, name, written, nice = status.split()
    assert name == written == plan.container.replace(".", "-")
    assert nice == "0"
    assert host.sh(plan, "ls /proc")["out"].split().count("1") == 1
    assert host.python(plan, "bytearray(200 << 20)")["status"] == -9
    assert host.runtime.usage(plan.container, 1).oom_kills == 1
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        assert os.readlink(f"/proc/{launched.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_no_descriptor_of_the_launchers_is_open_in_a_spare(host) -> None:
    host.launch(host.plan(0))
    for pid in spares(host, 2):
        wait_until(lambda pid=pid: len(os.listdir(f"/proc/{pid}/fd")) == 4)  # It has only just been forked.


def test_dead_spare_is_passed_over(host) -> None:
    host.launch(host.plan(0))
    for pid in spares(host, 2):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    plan = host.plan(1)
    host.launch(plan)
    assert host.sh(plan, "echo alive")["out"] == "alive\n"


def test_spares_die_with_their_launcher_and_containers_do_not(host) -> None:
    launched = host.launch(host.plan(0))
    waiting = [os.pidfd_open(pid) for pid in spares(host, 2)]
    os.kill(host.launcher_pid(), signal.SIGKILL)
    for fd in waiting:
        assert select.select([fd], [], [], 30)[0]
        os.close(fd)
    host.until(lambda event: isinstance(event, LauncherLost))
    assert processes.start_ticks(launched.pid) == launched.start_ticks
    assert "spare.failed" not in (host.state / "launcher.log").read_text()


def test_refused_descriptor_for_a_spare_does_not_end_the_launcher(host) -> None:
    host.launch(host.plan(0))
    waiting = spares(host, 2)
    launcher = host.launcher_pid()
    taken = set(map(int, os.listdir(f"/proc/{launcher}/fd")))
    free = next(fd for fd in itertools.count() if fd not in taken)
    _, most = resource.prlimit(launcher, resource.RLIMIT_NOFILE, (free, 20_000))
    try:
        os.kill(waiting[0], signal.SIGKILL)
        wait_until(lambda: "Too many open files" in (host.state / "launcher.log").read_text())
    finally:
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (most, most))
    host.launch(host.plan(1))
    assert host.launcher_pid() == launcher


def test_other_volumes_want_another_root_and_get_it(host) -> None:
    host.launch(host.plan(0))
    spares(host, 2)
    volume = VolumeDemand(path="/cache", size_bytes=4 * MIB, medium=Medium.TMPFS)
    plan = host.plan(1, demand={"volumes": (volume,)})
    host.launch(plan)
    assert host.sh(plan, "touch /cache/x && echo done")["out"] == "done\n"


def test_birth_that_fails_in_a_spare_says_why(host) -> None:
    disk = {"workspace": VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB)}
    host.launch(host.plan(0, demand=disk))
    spares(host, 2)
    plan = host.plan(1, demand={"workspace": VolumeDemand(path="/home/galaxy", size_bytes=1 << 50)})
    host._made.append(plan)
    host.runtime.launch(plan)
    failed = host.event(plan, LaunchFailed)
    assert "cannot make container" in failed.reason.message
    assert "no room on the disk for a volume of 1 PiB" in failed.reason.message


def test_spares_that_die_at_once_are_tried_ever_more_rarely_and_told_of_once(odd) -> None:
    odd.launch(odd.plan(0))
    tries: list[float] = []

    def tried() -> list[float]:
        with contextlib.suppress(FileNotFoundError):
            tries[:] = [float(line) for line in (odd.state / "tries").read_text().splitlines()]
        return tries

    wait_until(lambda: len(tried()) >= 6)
    assert tries[5] - tries[0] > 0.8
    plan = odd.plan(1)
    odd.launch(plan)
    assert odd.sh(plan, "echo alive")["out"] == "alive\n"
    told = (odd.state / "launcher.log").read_text().count("no spare on this host")
    assert told == 1


def test_spare_that_is_still_getting_ready_is_taken_and_lives(odd) -> None:
    (odd.state / "gate").touch()
    odd.launch(odd.plan(0))
    waiting = spares(odd, 2)
    plan = odd.plan(1)
    odd._made.append(plan)
    odd.runtime.launch(plan)
    wait_until(lambda: (odd.state / "c" / plan.key / "plan.json").exists())  # All of it is handed over.
    (odd.state / "gate").unlink()
    launched = odd.event(plan, Launched, LaunchFailed)
    assert isinstance(launched, Launched) and launched.pid in waiting


def test_nursery_that_is_killed_is_started_again(host) -> None:
    host.launch(host.plan(0))
    spares(host, 2)
    nursery = next(pid for pid in processes.descendants(host.launcher_pid()) if name(pid) == "galaxy-forker")
    os.kill(nursery, signal.SIGKILL)
    assert host.launch(host.plan(1)).pid
    spares(host, 2)
