"""Containers that are created from warm processes have the same isolation and limits as others."""

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
from tests.e2e.container.polling import process_name, wait_until

pytestmark = pytest.mark.root


def await_warm_processes(host, count: int) -> list[int]:
    """Wait until ``count`` warm processes wait for a plan; return their pids."""
    seen: list[int] = []

    def enough() -> bool:
        inits = {init.pid for init in host.runtime.running()}
        others = set(processes.descendants(host.launcher_pid())) - inits
        seen[:] = sorted(pid for pid in others if process_name(pid) == "galaxy-warm")
        return len(seen) == count

    wait_until(enough)
    return seen


def test_next_container_is_created_from_a_warm_process_with_full_isolation_and_limits(host) -> None:
    host.launch(host.plan(0))
    warm = await_warm_processes(host, 2)
    plan = host.plan(1)
    launched = host.launch(plan)
    assert launched.pid in warm
    script = "cat /proc/self/status; hostname; cat /etc/hostname; awk '{print $19}' /proc/self/stat"
    status = host.sh(plan, script)["out"]
    assert "CapBnd:\t00000000000001fb" in status and "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    *_, hostname, etc_hostname, nice = status.split()
    assert hostname == etc_hostname == plan.container.replace(".", "-")
    assert nice == "0"
    assert host.sh(plan, "ls /proc")["out"].split().count("1") == 1
    assert host.python(plan, "bytearray(200 << 20)")["status"] == -9
    assert host.runtime.meter.measure(plan.container, 1).oom_kills == 1
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        assert os.readlink(f"/proc/{launched.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_warm_process_has_no_descriptor_of_the_launcher(host) -> None:
    host.launch(host.plan(0))
    for pid in await_warm_processes(host, 2):
        # Its standard streams and its socket. It may have been forked a moment ago.
        wait_until(lambda pid=pid: len(os.listdir(f"/proc/{pid}/fd")) == 4)


def test_launch_skips_dead_warm_processes(host) -> None:
    host.launch(host.plan(0))
    for pid in await_warm_processes(host, 2):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    plan = host.plan(1)
    host.launch(plan)
    assert host.sh(plan, "echo alive")["out"] == "alive\n"


def test_warm_processes_die_with_their_launcher_and_containers_do_not(host) -> None:
    launched = host.launch(host.plan(0))
    warm = [os.pidfd_open(pid) for pid in await_warm_processes(host, 2)]
    os.kill(host.launcher_pid(), signal.SIGKILL)
    for fd in warm:
        assert select.select([fd], [], [], 30)[0]
        os.close(fd)
    host.until(lambda event: isinstance(event, LauncherLost))
    assert processes.start_ticks(launched.pid) == launched.start_ticks
    assert "warm-process.failed" not in (host.state / "launcher.log").read_text()


def test_launcher_without_a_free_descriptor_for_a_warm_process_keeps_running(host) -> None:
    host.launch(host.plan(0))
    warm = await_warm_processes(host, 2)
    launcher = host.launcher_pid()
    used = set(map(int, os.listdir(f"/proc/{launcher}/fd")))
    free = next(fd for fd in itertools.count() if fd not in used)
    _, limit = resource.prlimit(launcher, resource.RLIMIT_NOFILE, (free, 20_000))
    try:
        os.kill(warm[0], signal.SIGKILL)
        wait_until(lambda: "Too many open files" in (host.state / "launcher.log").read_text())
    finally:
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (limit, limit))
    host.launch(host.plan(1))
    assert host.launcher_pid() == launcher


def test_container_with_other_volumes_gets_its_own_root(host) -> None:
    host.launch(host.plan(0))
    await_warm_processes(host, 2)
    volume = VolumeDemand(path="/cache", size_bytes=4 * MIB, medium=Medium.TMPFS)
    plan = host.plan(1, demand={"volumes": (volume,)})
    host.launch(plan)
    assert host.sh(plan, "touch /cache/x && echo done")["out"] == "done\n"


def test_launch_that_fails_in_a_warm_process_gives_the_reason(host) -> None:
    disk = {"workspace": VolumeDemand(path="/home/galaxy", size_bytes=8 * MIB)}
    host.launch(host.plan(0, demand=disk))
    await_warm_processes(host, 2)
    plan = host.plan(1, demand={"workspace": VolumeDemand(path="/home/galaxy", size_bytes=1 << 50)})
    host.request(plan)
    failed = host.event(plan, LaunchFailed)
    assert "cannot make container" in failed.reason.message
    assert "no room on the disk for a volume of 1 PiB" in failed.reason.message


def test_failing_warm_up_is_retried_with_growing_delays_and_logged_once(gated_host) -> None:
    gated_host.launch(gated_host.plan(0))
    tries: list[float] = []

    def tried() -> list[float]:
        with contextlib.suppress(FileNotFoundError):
            tries[:] = [float(line) for line in (gated_host.state / "tries").read_text().splitlines()]
        return tries

    wait_until(lambda: len(tried()) >= 6)
    assert tries[5] - tries[0] > 0.8
    plan = gated_host.plan(1)
    gated_host.launch(plan)
    assert gated_host.sh(plan, "echo alive")["out"] == "alive\n"
    assert (gated_host.state / "launcher.log").read_text().count("no warm process on this host") == 1


def test_warm_process_that_is_still_warming_up_is_used(gated_host) -> None:
    (gated_host.state / "gate").touch()
    gated_host.launch(gated_host.plan(0))
    warm = await_warm_processes(gated_host, 2)
    plan = gated_host.plan(1)
    gated_host.request(plan)
    # The plan is saved after the handover.
    wait_until(lambda: (gated_host.state / "c" / plan.key / "plan.json").exists())
    (gated_host.state / "gate").unlink()
    launched = gated_host.event(plan, Launched, LaunchFailed)
    assert isinstance(launched, Launched) and launched.pid in warm


def test_forker_that_was_killed_is_started_again(host) -> None:
    host.launch(host.plan(0))
    await_warm_processes(host, 2)
    below = processes.descendants(host.launcher_pid())
    os.kill(next(pid for pid in below if process_name(pid) == "galaxy-forker"), signal.SIGKILL)
    assert host.launch(host.plan(1)).pid
    await_warm_processes(host, 2)
