"""What an update does to a container and its programs; AppMaster and AppWorker agree on it."""

import itertools

import pytest
from msgspec.structs import replace

from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.model.jobspec.demand import container_changes, demand_of, size_changes
from galaxy.model.jobspec.spec import (
    BlkioSpec,
    CpuSpec,
    DataSpec,
    HealthSpec,
    JobSpec,
    JobType,
    MemorySpec,
    PackageSpec,
    PortSpec,
    RestartSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.jobspec.task_diff import TaskChange, compare
from galaxy.model.messages.container import PortDemand
from galaxy.model.resources import Resources
from tests.unit.appmaster.world import service, with_deploy, with_task

DICT_1 = DataSpec(packages=(PackageSpec(source="file:///d", version="1"),), reload="kill -HUP 1")
DICT_2 = DataSpec(packages=(PackageSpec(source="file:///d", version="2"),), reload="kill -HUP 1")
DICT_3 = DataSpec(packages=(PackageSpec(source="file:///d", version="3"),))
TASKS: dict[str, TaskSpec] = {
    name: replace(service().pod.tasks[0], **changes)
    for name, changes in {
        "plain": {},
        "start": {"start": "serve v2"},
        "package": {"package": PackageSpec(source="file:///p", version="1")},
        "env": {"env": {"A": "1"}},
        "health": {"health": HealthSpec(type="tcp", port="http")},
        "restart": {"restart": RestartSpec(policy="never")},
        "stop": {"stop": "kill 1"},
        "services": {"services": ()},
        "data-1": {"data": DICT_1},
        "data-2": {"data": DICT_2},
        "data-3": {"data": DICT_3},
        "data-2-env": {"data": DICT_2, "env": {"A": "1"}},
    }.items()
}


def of(task: TaskSpec) -> JobSpec:
    spec = service()
    return replace(spec, pod=replace(spec.pod, tasks=(task,)))


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TASKS, TASKS)))
def test_appworker_does_to_a_program_what_appmaster_expects(old: str, new: str) -> None:
    expected = {
        Impact.NONE: TaskChange.NONE,
        Impact.IN_PLACE: TaskChange.NONE,
        Impact.RELOAD: TaskChange.RELOAD,
        Impact.REDEPLOY: TaskChange.REDEPLOY,
    }
    assert expected[impact(of(TASKS[old]), of(TASKS[new]))] is compare(TASKS[old], TASKS[new])


def test_change_of_step_needs_no_order_and_change_of_stop_timeout_leaves_programs_alone() -> None:
    assert impact(service(), with_deploy(service(), step=2, interval=9.0, drain=9.0)) is Impact.NONE
    assert impact(service(), with_deploy(service(), stop_timeout=9.0)) is Impact.IN_PLACE


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_change_of_a_program_changes_no_container(task: TaskSpec) -> None:
    assert container_changes(service(), of(task)) == ()
    assert demand_of(service()) == demand_of(of(task))


CONTAINER = {
    "type": replace(service(), type=JobType.MONITOR),
    "max_per_host": with_deploy(service(), max_per_host=2),
    "pools": with_deploy(service(), pools=("a", "b")),
    "tag": with_deploy(service(), tag="ssd"),
    "ports": with_task(service(), ports=(PortSpec(name="http", port=8080),)),
    "tasks": with_task(service(), name="other"),
    "workspace": replace(
        service(), pod=replace(service().pod, workspace=VolumeSpec(path="/home/work", size=2 << 20))
    ),
    "volumes": replace(
        service(), pod=replace(service().pod, volumes=(VolumeSpec(path="/data", size=1 << 20),))
    ),
}


@pytest.mark.parametrize("field", CONTAINER)
def test_change_of_a_container_is_named_with_old_and_new_value(field: str) -> None:
    (line,) = container_changes(service(), CONTAINER[field])
    name, _, values = line.partition(": ")
    old, _, new = values.partition(" -> ")
    assert field in name
    assert old != new


SIZE = {
    "cpu": with_task(service(), cpu=CpuSpec(millicores=100, excess=True)),
    "memory": with_task(service(), memory=MemorySpec(size=(64 << 20) + 1)),
    "blkio": with_task(service(), blkio=BlkioSpec(weight=10)),
    "pids": with_task(service(), pids=99),
}


@pytest.mark.parametrize("field", SIZE)
def test_change_of_a_limit_resizes_the_container_and_leaves_its_program_alone(field: str) -> None:
    (line,) = size_changes(service(), SIZE[field])
    name, _, values = line.partition(": ")
    old, _, new = values.partition(" -> ")
    assert field in name
    assert old != new
    assert container_changes(service(), SIZE[field]) == ()
    assert impact(service(), SIZE[field]) is Impact.IN_PLACE


def test_demand_of_a_pod_is_the_sum_of_its_tasks_with_ports_by_name() -> None:
    demand = demand_of(service())
    assert demand.resources == Resources(
        cpu_milli=100, memory_bytes=64 << 20, disk_bytes=1 << 20, containers=1
    )
    assert demand.ports == (PortDemand(name="http"),)
