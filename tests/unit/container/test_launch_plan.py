"""Limits derived from a demand, and refusal of invalid launch plans."""

from __future__ import annotations

import msgspec
import pytest

from galaxy.container.launcher.plan import LaunchPlan, check_plan, hostname_of
from galaxy.container.limits import COMMAND_PIDS, INIT_CPU_MILLI, INIT_MEMORY_BYTES, INIT_PIDS, limits_of
from galaxy.errors import UsageError
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.units import MIB

WORKSPACE = VolumeDemand(path="/home/galaxy", size_bytes=16 * MIB)


def task(name: str = "web", **changes: object) -> TaskDemand:
    return TaskDemand(**{"name": name, "cpu_milli": 250, "memory_bytes": 64 * MIB, "pids_max": 32} | changes)  # type: ignore[arg-type]


def plan(**changes: object) -> LaunchPlan:
    demand = Demand(**{"tasks": (task(),), "workspace": WORKSPACE} | changes)  # type: ignore[arg-type]
    return LaunchPlan(
        container="hello-3f9a2c.0", incarnation=1, host="h1", demand=demand, run_uid=1000, run_gid=1000
    )


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\x7f", "\x9b"])
def test_name_with_a_control_character_is_refused(letter: str) -> None:
    with pytest.raises(UsageError, match="cannot make container") as caught:
        check_plan(plan(tasks=(task(f"web{letter}"),)))
    assert any("is not a name" in line for line in caught.value.details)
    named = msgspec.structs.replace(plan(), container=f"web{letter}-3f9a2c.0")
    with pytest.raises(UsageError) as caught:
        check_plan(named)
    assert any("cannot be a directory's name" in line for line in caught.value.details)


def test_container_limit_is_the_sum_of_its_tasks_and_what_pid_1_needs() -> None:
    limits = limits_of(Demand(tasks=(task("a"), task("b", memory_bytes=32 * MIB)), workspace=WORKSPACE))
    assert limits.memory_hard_bytes == 96 * MIB + INIT_MEMORY_BYTES
    assert limits.cpu_milli == 500 + INIT_CPU_MILLI
    assert limits.pids_max == 64 + 2 * COMMAND_PIDS + INIT_PIDS
    assert limits.cpu_hard


def test_excess_cpu_of_one_task_removes_the_ceiling_of_the_container_but_not_of_other_tasks() -> None:
    limits = limits_of(Demand(tasks=(task("a", cpu_excess=True), task("b")), workspace=WORKSPACE))
    assert not limits.cpu_hard
    assert [one.cpu_hard for one in limits.tasks] == [False, True]


def test_excess_memory_becomes_a_soft_limit() -> None:
    limits = limits_of(Demand(tasks=(task(memory_excess=True),), workspace=WORKSPACE))
    assert limits.memory_hard_bytes == 0
    assert limits.memory_soft_bytes == 64 * MIB + INIT_MEMORY_BYTES
    assert (limits.tasks[0].memory_hard_bytes, limits.tasks[0].memory_soft_bytes) == (0, 64 * MIB)


def test_tmpfs_volumes_add_to_the_memory_limits() -> None:
    volumes = (VolumeDemand(path="/cache", size_bytes=8 * MIB, medium=Medium.TMPFS),)
    limits = limits_of(Demand(tasks=(task(),), workspace=WORKSPACE, volumes=volumes))
    assert limits.tasks[0].memory_hard_bytes == 72 * MIB
    assert limits.memory_hard_bytes == 72 * MIB + INIT_MEMORY_BYTES


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr", "/tmp", "/proc/x", "/dev/shm", "data", "/a/../b", "/a//b", "/a/"]
)
def test_volume_path_of_the_system_or_not_in_normal_form_is_refused(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_plan(plan(volumes=(VolumeDemand(path=path, size_bytes=MIB),)))
    assert path in caught.value.details[0]


def test_error_lists_every_problem_of_a_plan() -> None:
    with pytest.raises(UsageError) as caught:
        check_plan(
            plan(
                tasks=(task("init"), task("a"), task("a")), workspace=VolumeDemand(path="/sys", size_bytes=1)
            )
        )
    assert len(caught.value.details) == 3


def test_valid_plan_is_accepted() -> None:
    check_plan(plan(volumes=(VolumeDemand(path="/home/galaxy/data", size_bytes=MIB),)))


def test_outer_volumes_come_before_inner_ones() -> None:
    volumes = (VolumeDemand(path="/a/b/c", size_bytes=MIB), VolumeDemand(path="/a", size_bytes=MIB))
    assert [one.path for one in plan(volumes=volumes).volumes] == ["/a", "/home/galaxy", "/a/b/c"]


def test_host_name_has_no_dots_and_at_most_63_characters() -> None:
    assert hostname_of("hello-3f9a2c.0") == "hello-3f9a2c-0"
    assert len(hostname_of("x" * 80)) == 63


@pytest.mark.parametrize("missing", [{"run_uid": -1}, {"run_gid": -1}])
def test_plan_without_a_user_is_refused_where_pid_1_is_root(missing: dict[str, int]) -> None:
    changed = msgspec.structs.replace(plan(), **missing)
    with pytest.raises(UsageError):
        check_plan(changed)
    check_plan(msgspec.structs.replace(changed, mode="process"))
