"""Launch plans that decode but cannot be carried out: the launcher refuses them and keeps running."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given

from galaxy.container.launcher.plan import PROCESS, LaunchPlan, check_plan
from galaxy.container.launcher.protocol import Destroyed, Launched, LauncherLost, LaunchFailed
from galaxy.container.runtime import Runtime
from galaxy.errors import UsageError
from galaxy.ids import parse_container_key
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from tests.property.effort import examples
from tests.property.hostile_messages import hostile

MIB = 1024**2
SPACE = VolumeDemand(path="/home/galaxy", size_bytes=MIB)
TASK = TaskDemand(name="main", cpu_milli=10, memory_bytes=8 * MIB)


def plan(container: str = "web-abc123.0", incarnation: int = 1, **demand: object) -> LaunchPlan:
    full_demand = Demand(**{"tasks": (TASK,), "workspace": SPACE} | demand)  # type: ignore[arg-type]
    return LaunchPlan(container=container, incarnation=incarnation, host="h1", demand=full_demand)


INVALID = {
    "a NUL in its id": plan("web\0.0"),
    "a long id": plan("w" * 250 + ".0"),
    "an empty id": plan(""),
    "a negative incarnation": plan(incarnation=-1),
    "an incarnation of many digits": plan(incarnation=10**400),
    "a NUL in a path": plan(workspace=VolumeDemand(path="/a\0b", size_bytes=MIB)),
    "a long path": plan(workspace=VolumeDemand(path="/a" * 3000, size_bytes=MIB)),
    "a long name in a path": plan(workspace=VolumeDemand(path="/" + "a" * 300, size_bytes=MIB)),
    "a volume of size 0": plan(workspace=VolumeDemand(path="/a", size_bytes=0, medium=Medium.TMPFS)),
    "a volume of negative size": plan(workspace=VolumeDemand(path="/a", size_bytes=-1)),
    "a volume of 2**64 bytes": plan(workspace=VolumeDemand(path="/a", size_bytes=2**64)),
    "a NUL in a task's name": plan(tasks=(TaskDemand(name="\0", cpu_milli=10, memory_bytes=MIB),)),
    "a task with negative cpu": plan(tasks=(TaskDemand(name="a", cpu_milli=-1, memory_bytes=MIB),)),
    "a task with negative memory": plan(tasks=(TaskDemand(name="a", cpu_milli=1, memory_bytes=-1),)),
    "a task with 2**64 processes": plan(
        tasks=(TaskDemand(name="a", cpu_milli=1, memory_bytes=1, pids_max=2**64),)
    ),
}


@pytest.mark.parametrize("what", INVALID)
def test_plan_that_no_host_can_carry_out_is_refused(what: str) -> None:
    with pytest.raises(UsageError):
        check_plan(INVALID[what])


@examples(300)
@given(hostile(LaunchPlan))
def test_accepted_plan_has_only_names_and_numbers_that_the_kernel_accepts(drawn: LaunchPlan) -> None:
    try:
        check_plan(drawn)
    except UsageError as error:
        assert error.details
        return
    for name in (drawn.key, *(task.name for task in drawn.demand.tasks)):
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name and "\0" not in name and name not in (".", "..")
    assert parse_container_key(drawn.key) == (drawn.container, drawn.incarnation)
    for volume in drawn.volumes:
        assert len(volume.path) < 4096 and "\0" not in volume.path and ".." not in volume.path.split("/")
        assert 0 < volume.size_bytes <= 2**53
    for task in drawn.demand.tasks:
        assert min(task.cpu_milli, task.memory_bytes, task.pids_max, task.io_weight) >= 0
        assert max(task.cpu_milli, task.memory_bytes, task.pids_max, task.io_weight) <= 2**53


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path / "state", cgroup_root="galaxy-property", mode=PROCESS)
    runtime.start()
    yield runtime
    runtime.stop_launcher()
    runtime.close()


def await_event(runtime: Runtime, kind: type, what: str) -> None:
    """Wait for an event of ``kind``; fail if a container is launched or the launcher ends."""
    end_s = time.monotonic() + 60
    while True:
        events = runtime.events()
        assert not any(isinstance(event, LauncherLost | Launched) for event in events), (what, events)
        if any(isinstance(event, kind) for event in events):
            return
        assert time.monotonic() < end_s, what
        select.select([runtime], [], [], 0.2)


@pytest.mark.parametrize("name", ["../../victim", "x/../../../victim", "\0", "w" * 300])
def test_destroying_a_container_with_an_invalid_name_removes_nothing(
    runtime: Runtime, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim_1"
    victim.mkdir()
    runtime.destroy(name, 1)
    await_event(runtime, Destroyed, name)
    assert victim.is_dir()


def test_launcher_refuses_every_invalid_plan_and_keeps_running(runtime: Runtime) -> None:
    for what, invalid in INVALID.items():
        runtime.launch(invalid)
        await_event(runtime, LaunchFailed, what)
        runtime.destroy(invalid.container, invalid.incarnation)
        await_event(runtime, Destroyed, what)
