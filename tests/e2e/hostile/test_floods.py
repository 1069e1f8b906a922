"""A container that floods hits its own limits; its AppWorker goes on, and its neighbours hardly notice."""

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
from tests.support.hostile import Contained, neighbour, quoted
from tests.support.waiting import soon, until

FLOOD_S = 2.0


def during(container: Contained, seconds: float, look) -> list:
    """Collect what ``look`` sees while a flood goes on: bounded in time, that is what it is for."""
    end_s = time.monotonic() + seconds
    found = []
    while time.monotonic() < end_s:
        found.append(look())
        time.sleep(0.02)
    return found


@pytest.fixture
def flood(world):
    made = []

    def start(name: str, **how) -> Contained:
        container = world.container(name, start=quoted(FLOODS[name]), **how)
        made.append(container)
        container.await_log("flooding")
        return container

    yield start
    for container in made:
        container.destroy()


def test_fork_bomb_never_has_more_processes_than_granted_and_is_ended_by_an_order(flood) -> None:
    container = flood("forks", pids_max=40, stop_timeout=0.2)
    until("it has all that it may", lambda: container.pids() >= 40)
    seen = during(container, FLOOD_S, container.pids)
    assert max(seen) == 40
    container.order(run=False)
    container.until_state("stopped")
    container.await_pids(0)
    assert container.alive


def test_memory_flood_is_killed_inside_its_own_cgroup_and_counted_there(flood) -> None:
    container = flood("memory", memory_bytes=48 * MIB)
    container.await_log("killed", times=3)
    usage = container.world.runtime.usage(container.name, 1)
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
def test_inode_flood_ends_at_a_count_that_belongs_to_the_volume(flood, medium: Medium) -> None:
    container = flood(
        "inodes",
        cpu_milli=1000,
        workspace=VolumeDemand(path="/home/work", size_bytes=16 * MIB, medium=medium),
    )
    container.await_log("No space left on device")
    device, inodes = container.facts(
        "import json, os; print(json.dumps([os.stat('.').st_dev, os.statvfs('.').f_files]))"
    )
    assert device not in {os.stat(place).st_dev for place in ("/", "/tmp", "/dev/shm", container.world.state)}
    assert 0 < inodes < 10_000
    assert container.alive


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/run"])
def test_filling_memory_backed_places_ends_at_their_size_or_the_memory_limit(world, place: str) -> None:
    container = world.container("fill", memory_bytes=128 * MIB)
    script = (
        "import os, sys\ntry:\n fd = os.open(sys.argv[1] + '/big', os.O_CREAT | os.O_WRONLY)\n"
        " while os.write(fd, b'x' * (1 << 20)): pass\n"
        "except OSError as error:\n "
        " print(error.errno, os.path.getsize(sys.argv[1] + '/big') if error.errno == 28 else 0)"
    )
    status, out = container.python(script, place)
    # /run is not the program's to write to; the others hold 64 MiB each, charged to the task.
    assert (status, out.split()) == (0, ["13", "0"] if place == "/run" else ["28", str(64 * MIB)])
    charged = container.world.runtime.usage(container.name, 1).memory_bytes
    assert charged < 128 * MIB
    container.destroy()


def test_filling_both_beyond_the_memory_limit_kills_the_program_and_no_one_else(world) -> None:
    container = world.container("fill2", memory_bytes=48 * MIB)
    script = "import os\nfor p in ('/tmp/a', '/dev/shm/a'):\n open(p, 'wb').write(b'x' * (60 << 20))"
    assert container.python(script)[0] == 137
    assert container.world.runtime.usage(container.name, 1).oom_kills >= 1
    assert container.alive
    assert container.sh("rm -f /tmp/a /dev/shm/a; echo $?")[1] == "0\n"
    container.destroy()


def test_log_flood_fills_files_of_limited_size_and_number(flood) -> None:
    container = flood("logs", cpu_milli=1000)
    logs = container.world.runtime.log_path(container.name, 1)
    until("it has written much", lambda: size_of(logs) > MIB)
    sizes = during(container, FLOOD_S, lambda: size_of(logs))
    assert max(sizes) <= 2 * 5 * 10 * MIB + MIB
    assert container.sh("echo hears")[1] == "hears\n"


def size_of(directory: Path) -> int:
    """Return how much all files there hold; one that is rotated away meanwhile holds nothing."""
    sizes = [0]
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def test_zombies_by_the_thousand_are_buried_while_they_come(flood) -> None:
    container = flood("zombies", pids_max=64, cpu_milli=600)
    during(container, FLOOD_S, container.pids)
    assert container.alive
    container.order(start="exec sleep 1000000")
    container.until_state("running")
    container.await_pids(1)


def test_terminals_pipes_and_descriptors_run_out_inside_and_not_outside(world) -> None:
    container = world.container("greedy", memory_bytes=128 * MIB)
    held = container.facts(
        "import json, os\nfound = []\ntry:\n while True: found.append(os.openpty())\n"
        "except OSError: pass\nprint(json.dumps(len(found)))"
    )
    assert held == 64
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


def test_huge_core_dump_is_cut_at_the_volume_and_lies_in_it(world) -> None:
    start = quoted(
        "import os, mmap\nheld = [mmap.mmap(-1, 1 << 30) for _ in range(4)]\n"
        "for m in held: m[0:4 << 20] = b'x' * (4 << 20)\nos.abort()"
    )
    container = world.container("core", start=start, memory_bytes=96 * MIB)
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
def test_neighbour_answers_in_time_while_a_container_floods(world, flood, name: str, capsys) -> None:
    beside = neighbour(world)
    calm_s = beside.median_s(60)
    container = flood(name, stop_timeout=0.2)
    # Others use this machine, too, now and then: bench/neighbours.py measures.
    flooded_s = soon("answers beside a flood", 10 * calm_s + 0.05, lambda: beside.median_s(60))
    with capsys.disabled():
        print(f"\n{name}: median {calm_s * 1e3:.2f} ms calm, {flooded_s * 1e3:.2f} ms beside the flood")
    assert beside.container.alive and container.alive
    beside.container.destroy()
