"""Limits of real containers change while their programs run."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from galaxy.container.cgroup.detect import detect
from galaxy.model.messages.container import Demand
from galaxy.units import MIB

pytestmark = pytest.mark.root


@pytest.fixture
def host(launcher):
    yield launcher
    launcher.clear()


def changed(demand: Demand, **changes: object) -> Demand:
    return replace(demand, tasks=tuple(replace(task, **changes) for task in demand.tasks))


def memory_limits(host, plan) -> tuple[int, int]:
    """Return the memory limits of the container and of its first task, as the kernel has them."""
    found, task = detect(), plan.demand.tasks[0].name
    if found.version == "v2":
        mount, name = found.v2, "memory.max"
    else:
        mount, name = found.v1["memory"], "memory.limit_in_bytes"
    base = Path(mount) / host.cgroup_root / plan.key
    return int((base / name).read_text()), int((base / task / name).read_text())


@pytest.mark.parametrize("factor", [4, 0.5])
def test_every_limit_of_a_running_container_goes_up_and_down_again(host, factor: float) -> None:
    plan = host.plan()
    launched = host.launch(plan)
    before = memory_limits(host, plan)
    task = plan.demand.tasks[0]
    memory = int(task.memory_bytes * factor)
    demand = changed(
        plan.demand, memory_bytes=memory, cpu_milli=int(task.cpu_milli * factor), pids_max=20, io_weight=300
    )
    assert host.runtime.resize(plan.container, 1, demand) == ()
    container, own = memory_limits(host, plan)
    assert own - before[1] == container - before[0] == memory - task.memory_bytes
    assert host.runtime.resize(plan.container, 1, plan.demand) == ()
    assert memory_limits(host, plan) == before
    assert host.runtime.running()[0].pid == launched.pid


def test_program_may_use_more_memory_after_its_limit_was_raised(host) -> None:
    plan = host.plan()
    host.launch(plan)
    demand = changed(plan.demand, memory_bytes=400 * MIB)
    assert host.runtime.resize(plan.container, 1, demand) == ()
    assert host.python(plan, "x = bytearray(200 << 20); print(len(x))")["out"].strip() == str(200 << 20)


def test_limits_may_become_soft_and_hard_again(host) -> None:
    plan = host.plan()
    host.launch(plan)
    soft = changed(plan.demand, memory_excess=True, cpu_excess=True)
    before = memory_limits(host, plan)
    assert host.runtime.resize(plan.container, 1, soft) == ()
    assert host.python(plan, "x = bytearray(200 << 20); print(len(x))")["out"].strip() == str(200 << 20)
    assert host.runtime.resize(plan.container, 1, plan.demand) == ()
    assert memory_limits(host, plan) == before


def test_resize_of_a_container_that_does_not_exist_raises(host) -> None:
    plan = host.plan()
    with pytest.raises(OSError, match="No such file"):
        host.runtime.resize("nobody", 1, plan.demand)
