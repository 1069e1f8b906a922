"""A program that exhausts a resource reaches its own limits; AppWorker and other containers keep working."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import VolumeDemand
from galaxy.units import MIB
from tests.support.floods import FLOODS
from tests.support.hostile import HostileContainer, neighbour, quoted
from tests.support.waiting import until

FLOOD_S = 2.0
SAMPLE_S = 0.02
LASTING_SAMPLES = 15
"""Longer than two CPU periods of 100 ms, for which a process may be stopped in the middle of fork()."""


def samples(duration_s: float, sample) -> list:
    """Call ``sample`` every ``SAMPLE_S`` for ``duration_s`` or longer during a flood; return its results."""
    end_s = time.monotonic() + duration_s
    found = []
    while time.monotonic() < end_s or len(found) < LASTING_SAMPLES:
        found.append(sample())
        time.sleep(SAMPLE_S)
    return found


def lasting_max(counts: list[int]) -> int:
    """Return the largest count that every one of some successive samples reached.

    fork() adds the new process to pids.current before it compares that with the limit, and subtracts it
    again when it refuses. A single sample may therefore exceed the limit though no process was created.
    """
    windows = zip(*(counts[start:] for start in range(LASTING_SAMPLES)), strict=False)
    return max(min(window) for window in windows)


@pytest.fixture
def flood(host):
    started = []

    def start(name: str, **how) -> HostileContainer:
        container = host.container(name, start=quoted(FLOODS[name]), **how)
        started.append(container)
        container.await_log("flooding")
        return container

    yield start
    for container in started:
        container.destroy()


def test_fork_bomb_never_has_more_processes_than_its_limit_and_can_be_stopped(flood) -> None:
    container = flood("forks", pids_max=40, stop_timeout=0.2)
    until("it has reached its limit", lambda: container.pids() >= 40)
    assert lasting_max(samples(FLOOD_S, container.pids)) == 40
    container.order(run=False)
    container.until_state("stopped")
    container.await_pids(0)
    assert container.alive


def test_memory_flood_is_killed_in_its_own_cgroup_and_counted_there(flood) -> None:
    container = flood("memory", memory_bytes=48 * MIB)
    container.await_log("killed", times=3)
    usage = container.host.runtime.meter.measure(container.name, 1)
    assert usage.oom_kills >= 3
    assert usage.memory_bytes <= 48 * MIB + 16 * MIB + 32 * MIB  # The task's, its tmpfs, AppWorker's.
    assert container.alive
    container.order(run=False)
    container.until_state("stopped")


@pytest.mark.parametrize("medium", [Medium.TMPFS, Medium.DISK])
def test_disk_flood_ends_at_the_size_of_the_volume(flood, medium: Medium) -> None:
    container = flood("disk", workspace=VolumeDemand(path="/home/work", size_bytes=24 * MIB, medium=medium))
    container.await_log("No space left on device")
    used = container.facts("import json, os; s = os.statvfs('.'); print(json.dumps(s.f_blocks * s.f_frsize))")
    assert used <= 24 * MIB
    assert container.alive


@pytest.mark.parametrize("medium", [Medium.TMPFS, Medium.DISK])
def test_inode_flood_ends_at_the_limit_of_its_own_volume(flood, medium: Medium) -> None:
    container = flood(
        "inodes",
        cpu_milli=1000,
        workspace=VolumeDemand(path="/home/work", size_bytes=16 * MIB, medium=medium),
    )
    container.await_log("No space left on device")
    device, inodes = container.facts(
        "import json, os; print(json.dumps([os.stat('.').st_dev, os.statvfs('.').f_files]))"
    )
    assert device not in {os.stat(place).st_dev for place in ("/", "/tmp", "/dev/shm", container.host.state)}
    assert 0 < inodes < 10_000
    assert container.alive


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm", "/run"])
def test_filling_a_tmpfs_directory_ends_at_its_size(host, directory: str) -> None:
    container = host.container("fill", memory_bytes=128 * MIB)
    script = (
        "import os, sys\ntry:\n fd = os.open(sys.argv[1] + '/big', os.O_CREAT | os.O_WRONLY)\n"
        " while os.write(fd, b'x' * (1 << 20)): pass\n"
        "except OSError as error:\n "
        " print(error.errno, os.path.getsize(sys.argv[1] + '/big') if error.errno == 28 else 0)"
    )
    status, out = container.python(script, directory)
    # A program cannot write to /run; the others hold 64 MiB each, which is charged to the task.
    assert (status, out.split()) == (0, ["13", "0"] if directory == "/run" else ["28", str(64 * MIB)])
    charged = container.host.runtime.meter.measure(container.name, 1).memory_bytes
    assert charged < 128 * MIB
    container.destroy()


def test_filling_tmpfs_over_the_memory_limit_kills_only_the_program(host) -> None:
    container = host.container("fill2", memory_bytes=48 * MIB)
    script = "import os\nfor p in ('/tmp/a', '/dev/shm/a'):\n open(p, 'wb').write(b'x' * (60 << 20))"
    assert container.python(script)[0] == 137
    assert container.host.runtime.meter.measure(container.name, 1).oom_kills >= 1
    assert container.alive
    assert container.sh("rm -f /tmp/a /dev/shm/a; echo $?")[1] == "0\n"
    container.destroy()


def test_log_flood_fills_files_of_limited_size_and_number(flood) -> None:
    container = flood("logs", cpu_milli=1000)
    logs = container.host.runtime.log_path(container.name, 1)
    until("it has written 1 MiB", lambda: size_of(logs) > MIB)
    sizes = samples(FLOOD_S, lambda: size_of(logs))
    arrivals = 5 * 10 * MIB // 8
    assert max(sizes) <= 2 * 5 * 10 * MIB + arrivals + MIB
    assert container.sh("echo alive")[1] == "alive\n"


def size_of(directory: Path) -> int:
    """Return the total size of the files in a directory; files that are rotated away meanwhile count as 0."""
    sizes = [0]
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def test_zombies_of_a_program_that_forks_all_the_time_are_reaped(flood) -> None:
    container = flood("zombies", pids_max=64, cpu_milli=600)
    assert lasting_max(samples(FLOOD_S, container.pids)) <= 64
    assert container.alive
    container.order(start="exec sleep 1000000")
    container.until_state("running")
    container.await_pids(1)


def test_terminals_pipes_and_descriptors_run_out_only_inside_the_container(host) -> None:
    container = host.container("greedy", memory_bytes=128 * MIB)
    terminals = container.facts(
        "import json, os\nfound = []\ntry:\n while True: found.append(os.openpty())\n"
        "except OSError: pass\nprint(json.dumps(len(found)))"
    )
    assert terminals == 64
    ours = [os.openpty() for _ in range(3)]
    for pair in ours:
        for fd in pair:
            os.close(fd)
    pipes = container.facts(
        "import json, os\nfound = []\ntry:\n while True: found.append(os.pipe())\n"
        "except OSError as error: print(json.dumps(error.errno))"
    )
    assert pipes in (23, 24)
    assert container.alive
    container.destroy()


def test_core_dump_is_limited_by_the_size_of_its_volume(host) -> None:
    start = quoted(
        "import os, mmap\nheld = [mmap.mmap(-1, 1 << 30) for _ in range(4)]\n"
        "for m in held: m[0:4 << 20] = b'x' * (4 << 20)\nos.abort()"
    )
    container = host.container("core", start=start, memory_bytes=96 * MIB)
    pod = container.until_pod(lambda pod: pod.tasks and pod.tasks[0].last_exit is not None)
    assert pod.tasks[0].last_exit.signal == 6
    assert not os.path.exists("/core")
    container.order(start="exec sleep 1000000")
    container.until_state("running")
    blocks = container.facts(
        "import json, os\ncores = [os.stat(n).st_blocks * 512 for n in os.listdir('.') if 'core' in n]\n"
        "print(json.dumps(cores))"
    )
    with open("/proc/sys/kernel/core_pattern") as pattern:
        elsewhere = pattern.read(1) in "|/"
    assert elsewhere or 0 < sum(blocks) <= 16 * MIB
    assert container.alive
    container.destroy()


@pytest.mark.parametrize("name", sorted(FLOODS))
def test_neighbour_answers_every_request_while_a_container_floods(host, flood, name: str) -> None:
    beside = neighbour(host)
    container = flood(name, stop_timeout=0.2)
    assert len(beside.times_s(60)) == 60  # bench/neighbours.py measures how fast.
    assert beside.container.alive and container.alive
    beside.container.destroy()
