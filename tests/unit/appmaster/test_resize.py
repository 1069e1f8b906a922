"""Resizing running containers: in place at the pace of the rollout, else by a move."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace

from galaxy.model.api.jobs import UpdateJob
from galaxy.model.api.quotas import SetQuota
from galaxy.model.api.request import Request
from galaxy.model.api.safemode import EnterSafeMode, LeaveSafeMode
from galaxy.model.jobspec.spec import BlkioSpec, CpuSpec, JobSpec, MemorySpec
from galaxy.model.messages.container import ContainerState, CreateContainer
from galaxy.model.messages.names import CONTAINER_APPLY, RESMAN
from galaxy.model.resources import NOTHING, Ceiling
from galaxy.model.stored.account import Account
from galaxy.testing.simulation.faults import message_faults
from galaxy.units import GIB, MIB
from tests.unit.appmaster.world import World, service, with_task


def sized(spec: JobSpec, *, cpu: int = 100, memory: int = 64 * MIB, excess: bool = False) -> JobSpec:
    """Return ``spec`` with other amounts for its task."""
    return with_task(
        spec,
        cpu=CpuSpec(millicores=cpu, excess=excess),
        memory=MemorySpec(size=memory, excess=excess),
    )


def memory_of(world: World, job: str) -> list[int]:
    """Return the memory limits that are really in force, by pod."""
    return [
        sum(task.memory_bytes for task in worker.demand.tasks)
        for name, worker in sorted(world.scenario.workers().items())
        if name.startswith(job)
    ]


def incarnations(world: World, job: str) -> list[int]:
    return [slot.incarnation for slot in sorted(world.slots(job), key=lambda row: row.slot)]


def starts(world: World) -> int:
    return len(world.scenario.programs_started)


def watch(world: World, holds: Callable[[], bool]) -> None:
    """Check after every event from now on that ``holds()`` is true."""

    def check() -> None:
        assert holds(), f"broken at {world.now}"

    world.watchers.append(check)


def within_hosts(world: World) -> bool:
    """Return whether the sizes of the containers of every host are within what it has."""
    for host in world.hosts.values():
        total = sum((worker.demand.resources for worker in host.living.values()), NOTHING)
        if total.cpu_milli > host.info.cpu_milli or total.memory_bytes > host.info.memory_bytes:
            return False
    return True


@pytest.mark.parametrize("memory", [32 * MIB, 128 * MIB])
def test_changed_limits_of_a_running_job_apply_without_a_restart(memory: int) -> None:
    world = World(hosts=3)
    spec = service(replica=3)
    job = world.submit(spec)
    world.settle(job)
    before, started = incarnations(world, job), starts(world)

    world.update(job, sized(spec, cpu=250, memory=memory))
    world.settle(job)

    assert memory_of(world, job) == [memory] * 3
    assert [worker.demand.tasks[0].cpu_milli for worker in world.scenario.workers().values()] == [250] * 3
    assert incarnations(world, job) == before
    assert starts(world) == started
    assert world.order(job).demand.tasks[0].memory_bytes == memory


def test_every_limit_that_an_agent_enforces_can_be_changed() -> None:
    world = World(hosts=1)
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)

    changed = with_task(sized(spec, excess=True), pids=64, blkio=BlkioSpec(weight=700))
    world.update(job, changed)
    world.settle(job)

    (task,) = world.worker(f"{job}.0").demand.tasks
    assert (task.pids_max, task.io_weight, task.cpu_excess, task.memory_excess) == (64, 700, True, True)


def test_pods_are_resized_at_the_pace_of_the_rollout() -> None:
    world = World(hosts=2)
    spec = service(replica=4, step=1, interval=5.0)
    job = world.submit(spec)
    world.settle(job)
    seen: list[int] = []
    world.watchers.append(lambda: seen.append(memory_of(world, job).count(128 * MIB)))
    began = world.now

    world.update(job, sized(spec, memory=128 * MIB))
    world.settle(job)

    assert sorted(set(seen)) == [0, 1, 2, 3, 4]
    assert world.now - began >= 15.0
    assert all(later >= earlier for earlier, later in pairwise(seen))


def test_pod_whose_host_lacks_room_moves_and_the_others_grow_in_place() -> None:
    sizes = ({"memory_bytes": 256 * MIB}, {"memory_bytes": 4 * GIB})
    world = World(hosts=2, sizes=sizes)
    spec = service(replica=2, max_per_host=1)
    job = world.submit(spec)
    world.settle(job)
    small = next(slot.container for slot in world.slots(job) if slot.agent == "h1")
    world.scenario.add_host(replace(world.hosts["h2"].info, agent="h9", boot="b9"))
    world.run(3)
    watch(world, lambda: within_hosts(world))

    world.update(job, sized(spec, memory=512 * MIB))
    world.settle(job)

    assert memory_of(world, job) == [512 * MIB] * 2
    assert world.worker(small).host == "h9"
    assert sorted(incarnations(world, job)) == [1, 2]


def test_pod_that_fits_nowhere_keeps_its_size_and_runs_on_until_there_is_room() -> None:
    world = World(hosts=1, sizes=({"memory_bytes": 256 * MIB},))
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)
    watch(world, lambda: world.programs() != {})

    world.update(job, sized(spec, memory=512 * MIB))
    world.run(60)

    (pod,) = world.show(job).pods
    assert pod.state == "running" and memory_of(world, job) == [64 * MIB]
    assert pod.reason is not None and "h1 lacks memory" in pod.reason.message
    assert pod.reason.counts == {"memory": 1} and pod.reason.hosts == {"memory": ("h1",)}
    assert pod.reason.nearest == ("h1 lacks 256 MiB memory in place",)
    assert pod.reason.changes == ("memory 256 MiB instead of 512 MiB (h1 has room then)",)
    whole = world.show(job).summary.reason
    assert whole is not None and whole.code == pod.reason.code
    assert whole.message == f"1 of 1 pods waiting for a new size: {job}.0: {pod.reason.message}"
    assert world.show(job).summary.in_force == replace(
        world.show(job).summary.resources, memory_bytes=64 * MIB
    )
    assert incarnations(world, job) == [1]

    world.watchers.clear()
    world.scenario.add_host(replace(world.hosts["h1"].info, agent="h2", boot="b2", memory_bytes=GIB))
    world.settle(job)
    assert memory_of(world, job) == [512 * MIB] and world.worker(f"{job}.0").host == "h2"
    assert world.show(job).summary.in_force is None


def test_memory_in_use_holds_a_lower_limit_with_a_reason_until_it_fits() -> None:
    world = World(hosts=1)
    spec = sized(service(replica=1), memory=256 * MIB)
    job = world.submit(spec)
    world.settle(job)
    world.hosts["h1"].machine.memory_used[f"{job}.0"] = 200 * MIB

    world.update(job, sized(spec, memory=128 * MIB))
    world.run(30)

    (pod,) = world.show(job).pods
    assert pod.reason is not None and pod.reason.code == "resize-in-use"
    whole = world.show(job).summary.reason
    assert whole is not None and whole.message.endswith(pod.reason.message)
    assert memory_of(world, job) == [256 * MIB]
    assert world.state(job) == "updating"
    (slot,) = world.slots(job)
    assert slot.resources.memory_bytes == 256 * MIB, "its host still counts the larger size"

    world.hosts["h1"].machine.memory_used.clear()
    world.settle(job, within_s=120)
    assert memory_of(world, job) == [128 * MIB]
    assert world.show(job).pods[0].reason is None and world.show(job).summary.reason is None


def test_rollback_of_a_held_resize_ends_it() -> None:
    world = World(hosts=1)
    spec = sized(service(replica=2), memory=256 * MIB)
    job = world.submit(spec)
    world.settle(job)
    for index in range(2):
        world.hosts["h1"].machine.memory_used[f"{job}.{index}"] = 200 * MIB
    world.update(job, sized(spec, memory=128 * MIB))
    world.run(10)

    world.update(job, spec)
    world.settle(job)

    assert memory_of(world, job) == [256 * MIB] * 2
    assert [pod.reason for pod in world.show(job).pods] == [None, None]


def test_another_update_in_the_middle_of_a_resize_wins() -> None:
    world = World(hosts=2)
    spec = service(replica=4, interval=2.0)
    job = world.submit(spec)
    world.settle(job)
    started = starts(world)

    world.update(job, sized(spec, memory=128 * MIB))
    world.run_until(lambda: memory_of(world, job).count(128 * MIB) == 2, 30)
    world.update(job, sized(spec, memory=96 * MIB, cpu=50))
    world.settle(job)

    assert memory_of(world, job) == [96 * MIB] * 4
    assert incarnations(world, job) == [1] * 4 and starts(world) == started


def test_program_of_a_new_revision_starts_after_its_container_has_grown() -> None:
    world = World(hosts=1)
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)

    def check() -> None:
        if world.programs().get(f"{job}.0") == "serve 2":
            assert memory_of(world, job) == [128 * MIB]

    world.watchers.append(check)
    world.update(job, with_task(sized(spec, memory=128 * MIB), start="serve 2"))
    world.settle(job)
    assert world.programs() == {f"{job}.0": "serve 2"}


def test_smaller_program_replaces_one_that_uses_too_much_for_its_new_limit() -> None:
    world = World(hosts=1)
    spec = sized(service(replica=1), memory=256 * MIB)
    job = world.submit(spec)
    world.settle(job)
    machine = world.hosts["h1"].machine
    machine.memory_used[f"{job}.0"] = 200 * MIB
    world.watchers.append(
        lambda: machine.memory_used.clear() if world.programs().get(f"{job}.0") == "serve 2" else None
    )

    world.update(job, with_task(sized(spec, memory=128 * MIB), start="serve 2"))
    world.settle(job, within_s=120)

    assert memory_of(world, job) == [128 * MIB]


def test_growth_beyond_the_quota_is_refused_and_nothing_changes() -> None:
    world = World(hosts=2)
    spec = service(replica=2)
    job = world.submit(spec)
    world.settle(job)
    world.ask(SetQuota(user="ann", ceiling=Ceiling(memory_bytes=200 * MIB)))

    answer = world.request(UpdateJob(job=job, spec=sized(spec, memory=128 * MIB)))

    assert answer.problem is not None
    assert "memory quota" in answer.problem.message
    assert any("asks 256 MiB (2 x 128 MiB)" in line for line in answer.problem.details)
    world.run(5)
    assert memory_of(world, job) == [64 * MIB] * 2 and world.show(job).summary.revision == 1


def test_quota_in_resman_counts_the_larger_size_until_the_smaller_is_in_force() -> None:
    world = World(hosts=1)
    spec = sized(service(replica=1), memory=256 * MIB)
    job = world.submit(spec)
    world.settle(job)
    world.hosts["h1"].machine.memory_used[f"{job}.0"] = 200 * MIB
    usage = world.scenario.logic(RESMAN).state.quota_usage

    world.update(job, sized(spec, memory=128 * MIB))
    world.run(5)
    assert usage.used("ann", "*").memory_bytes == 256 * MIB

    world.hosts["h1"].machine.memory_used.clear()
    world.settle(job, within_s=120)
    assert usage.used("ann", "*").memory_bytes == 128 * MIB


@pytest.mark.parametrize("seed", range(6))
def test_resizes_converge_under_lost_late_and_repeated_messages_and_failovers(seed: int) -> None:
    world = World(hosts=2, seed=seed, faults=message_faults(), sizes=({"memory_bytes": 600 * MIB},))
    spec = service(replica=4)
    job = world.submit(spec)
    world.settle(job, within_s=120)
    watch(world, lambda: within_hosts(world))

    for memory in (128 * MIB, 32 * MIB, 96 * MIB):
        world.update(job, sized(spec, memory=memory))
        world.run(world.random.uniform(0, 3))
        world.scenario.failover(world.random.choice(("resman", "appmaster")))
    world.settle(job, within_s=300)

    assert memory_of(world, job) == [96 * MIB] * 4


def test_late_order_of_an_earlier_size_changes_nothing() -> None:
    world = World(hosts=1)
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)
    world.update(job, sized(spec, memory=128 * MIB))
    world.settle(job)
    late = [
        send
        for send in world.sends
        if send.task == CONTAINER_APPLY and any(one.size for one in send.body.create)
    ][-1]
    world.update(job, sized(spec, memory=32 * MIB))
    world.settle(job)

    body = replace(late.body, until_s=world.now + 60)
    assert isinstance(body.create[0], CreateContainer)
    world.scenario.bus.send(replace(late, body=body))
    world.run(5)

    assert memory_of(world, job) == [32 * MIB]


def test_agent_that_restarts_in_the_middle_of_a_resize_finishes_it() -> None:
    world = World(hosts=1)
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)
    host = world.hosts["h1"]
    host.machine.memory_used[f"{job}.0"] = 64 * MIB
    world.update(job, sized(spec, memory=32 * MIB))
    world.run(5)
    host.crash()
    host.machine.memory_used.clear()
    world.settle(job, within_s=120)

    assert memory_of(world, job) == [32 * MIB] and incarnations(world, job) == [1]


def test_container_that_is_replaced_in_the_middle_of_a_resize_gets_the_new_size() -> None:
    world = World(hosts=2)
    spec = service(replica=2, interval=30.0)
    job = world.submit(spec)
    world.settle(job)
    world.update(job, sized(spec, memory=128 * MIB))
    world.run_until(lambda: memory_of(world, job).count(128 * MIB) == 1, 30)

    world.hosts["h1"].power_off(600)
    world.settle(job, within_s=300)

    assert memory_of(world, job) == [128 * MIB] * 2


def test_stopped_job_is_resized_at_once_and_starts_with_its_new_limits() -> None:
    world = World(hosts=2)
    spec = service(replica=4)
    job = world.submit(spec)
    world.settle(job)
    world.do("stop", job)
    world.settle(job, "stopped")

    world.update(job, sized(spec, memory=128 * MIB))
    world.run_until(lambda: memory_of(world, job) == [128 * MIB] * 4, 10)
    world.do("start", job)
    world.settle(job)

    assert incarnations(world, job) == [1] * 4


def test_update_says_what_each_changed_field_does() -> None:
    world = World(hosts=1)
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)

    changed = with_task(sized(spec, memory=128 * MIB), start="serve 2", stop="bye")
    accepted = world.update(job, changed)

    assert accepted.effects == (
        "pod.tasks.main.memory: 64 MiB -> 128 MiB: in place, or the pod moves if its host lacks room",
        "pod.tasks.main.start: the program restarts in its container",
        "pod.tasks.main.stop: in place",
    )


def test_accounts_hold_the_new_size_from_when_it_is_in_force() -> None:
    world = World(hosts=1)
    spec = sized(service(replica=1), memory=256 * MIB)
    job = world.submit(spec)
    world.settle(job)
    world.hosts["h1"].machine.memory_used[f"{job}.0"] = 200 * MIB

    def held() -> list[int]:
        rows = world.scenario.stored(RESMAN, "accounts", Account).values()
        return [row.held.memory_bytes for row in rows if row.job == job]

    world.update(job, sized(spec, memory=128 * MIB))
    world.run(5)
    assert held() == [256 * MIB]

    world.hosts["h1"].machine.memory_used.clear()
    world.settle(job, within_s=120)
    assert held() == [128 * MIB]


def test_pods_that_move_for_room_keep_as_many_others_serving_as_the_job_allows() -> None:
    world = World(hosts=2, sizes=({"memory_bytes": 256 * MIB},))
    spec = service(replica=2, max_per_host=1)
    job = world.submit(spec)
    world.settle(job)
    for name in ("h8", "h9"):
        info = replace(world.hosts["h1"].info, agent=name, boot=name, memory_bytes=GIB)
        world.scenario.add_host(info)
    world.run(3)
    watch(world, lambda: len(world.programs()) >= 1)

    world.update(job, sized(spec, memory=512 * MIB))
    world.settle(job, within_s=120)

    assert memory_of(world, job) == [512 * MIB] * 2
    assert {worker.host for worker in world.scenario.workers().values()} == {"h8", "h9"}


def test_in_safe_mode_no_pod_moves_for_room() -> None:
    world = World(hosts=1, sizes=({"memory_bytes": 256 * MIB},))
    spec = service(replica=1)
    job = world.submit(spec)
    world.settle(job)
    world.scenario.add_host(replace(world.hosts["h1"].info, agent="h9", boot="b9", memory_bytes=GIB))
    world.run(3)
    for wanted in (EnterSafeMode(reason="maintenance"), LeaveSafeMode()):
        answer = world.scenario.request(
            Request(
                op=wanted.op,
                key=wanted.op,
                reply=wanted.op,
                deadline_s=world.now + 30,
                user="ann",
                body=wanted,
            ),
            role=RESMAN,
        )
        assert answer.problem is None
        if isinstance(wanted, EnterSafeMode):
            world.run(5)
            world.update(job, sized(spec, memory=512 * MIB))
            world.run(30)
            (slot,) = world.slots(job)
            assert (slot.agent, slot.state) == ("h1", ContainerState.READY)
    world.settle(job, within_s=120)
    assert world.worker(f"{job}.0").host == "h9"
