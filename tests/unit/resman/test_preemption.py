"""Important containers get room from less important ones, and large ones are not starved by small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from galaxy.model.base import Struct
from galaxy.model.messages.container import PREEMPTED, ContainerState, Reason
from galaxy.model.messages.names import RESMAN
from galaxy.model.step import Step
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.groups.transitions import SlotMoved
from galaxy.testing.simulation.checkers.preemption import PreemptionChecker
from galaxy.testing.simulation.checkers.violation import Violation
from tests.unit.resman.cluster import Cluster, demand, info

WITHIN_S = 30.0
SERVICE, BATCH, BEST_EFFORT = 100, 200, 300
CORE = demand(cpu=1000, memory=1, disk=1)
HOST = demand(cpu=4000, memory=1, disk=1)


def _cluster(hosts: int, resman: Callable[[], ResMan] | None = None, **config: float) -> Cluster:
    """Return hosts of four cores; what is preempted is checked after every step."""
    agents = (info(f"h{n}") for n in range(1, hosts + 1))
    cluster = Cluster(*agents, config=ResManConfig(**config), resman=resman)
    checker = PreemptionChecker()
    cluster.watchers.append(
        lambda: checker.check(cluster.leaders[RESMAN]) if cluster.leaders[RESMAN].leads else None
    )
    return cluster


def _until_ready(cluster: Cluster, group: str, count: int = 1) -> None:
    cluster.run_until(lambda: len(cluster.agents_of(group)) == count, WITHIN_S)


def _preempted(cluster: Cluster, group: str) -> int:
    return sum(row.reason is not None and row.reason.code == PREEMPTED for row in cluster.current(group))


def test_service_gets_room_from_the_fewest_batch_containers_which_wait_with_the_reason() -> None:
    cluster = _cluster(2)
    cluster.order("batch-1", 8, CORE, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1", 8)
    cluster.order("web-1", 1, demand(cpu=2000, memory=1, disk=1), priority=SERVICE)
    _until_ready(cluster, "web-1")
    cluster.run(5)
    assert len(cluster.agents_of("batch-1")) == 6
    waiting = [slot.reason for slot in cluster.slots.values() if slot.reason is not None]
    assert [reason.code for reason in waiting] == [PREEMPTED] * 2
    assert all(reason.message.startswith("made room for web-1.0 on h") for reason in waiting)
    assert all("; no agent has room: " in reason.message for reason in waiting)


def test_best_effort_goes_before_batch() -> None:
    cluster = _cluster(2)
    cluster.order("batch-1", 4, CORE, priority=BATCH, batch=True, user="a")
    _until_ready(cluster, "batch-1", 4)
    cluster.order("spare-1", 4, CORE, priority=BEST_EFFORT)
    _until_ready(cluster, "spare-1", 4)
    cluster.order("web-1", 2, CORE, priority=SERVICE)
    _until_ready(cluster, "web-1", 2)
    assert len(cluster.agents_of("batch-1")) == 4
    assert len(cluster.agents_of("spare-1")) == 2


def test_several_pods_get_room_at_once_on_several_hosts() -> None:
    cluster = _cluster(3)
    cluster.order("batch-1", 3, HOST, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1", 3)
    cluster.order("web-1", 3, HOST, priority=SERVICE)
    _until_ready(cluster, "web-1", 3)
    assert cluster.agents_of("batch-1") == []


def test_more_pods_than_one_step_makes_room_for_get_it_in_the_next_steps() -> None:
    cluster = _cluster(12, preemptions_per_step_max=5)
    cluster.order("batch-1", 12, HOST, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1", 12)
    for number in range(12):
        cluster.order(f"web{number}-1", 1, HOST, priority=SERVICE)
    cluster.run(8)
    assert all(cluster.agents_of(f"web{number}-1") for number in range(12))


def test_nothing_is_preempted_by_equals_or_where_it_would_not_help() -> None:
    cluster = _cluster(1)
    cluster.order("batch-1", 4, CORE, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1", 4)
    cluster.order("more-1", 1, CORE, priority=BATCH)
    cluster.order("large-1", 1, demand(cpu=5000, memory=1, disk=1), priority=SERVICE)
    cluster.run(20)
    assert len(cluster.agents_of("batch-1")) == 4
    assert _preempted(cluster, "batch-1") == 0


def test_room_is_kept_for_the_container_that_was_waited_for_although_others_want_it() -> None:
    cluster = _cluster(1)
    cluster.order("batch-1", 4, CORE, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1", 4)
    cluster.order("web-1", 1, HOST, priority=SERVICE)
    cluster.order("small-1", 4, CORE, priority=BATCH)
    _until_ready(cluster, "web-1")
    assert cluster.agents_of("small-1") == []


def test_preemption_is_finished_by_the_next_leader() -> None:
    cluster = _cluster(1)
    cluster.order("batch-1", 1, HOST, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1")
    cluster.order("web-1", 1, HOST, priority=SERVICE)
    cluster.run_until(lambda: _preempted(cluster, "batch-1") == 1, 5.0)
    cluster.failover(RESMAN)
    _until_ready(cluster, "web-1")


def test_large_batch_container_is_not_starved_by_small_ones() -> None:
    cluster = _cluster(1, reserve_after_s=5.0)
    cluster.order("small-0", 4, CORE, priority=BATCH, batch=True)
    _until_ready(cluster, "small-0", 4)
    cluster.order("large-1", 1, HOST, priority=BATCH, batch=True)
    for number in range(1, 12):  # One small one ends every three seconds, and another one comes.
        cluster.order(f"small-{number}", 1, CORE, priority=BATCH, batch=True)
        cluster.order("large-1", 1, HOST, priority=BATCH, batch=True)
        cluster.order("small-0", max(0, 4 - number), CORE, priority=BATCH, batch=True)
        if number > 4:
            cluster.order(f"small-{number - 4}", 0, CORE, priority=BATCH, batch=True)
        cluster.run(3)
    _until_ready(cluster, "large-1")


def test_reservation_ends_when_the_container_is_not_wanted_any_more() -> None:
    cluster = _cluster(1)
    cluster.hosts["h1"].machine.launch_s = 0.1
    cluster.order("batch-1", 1, HOST, priority=BATCH, batch=True)
    _until_ready(cluster, "batch-1")
    cluster.order("web-1", 1, HOST, priority=SERVICE)
    cluster.run_until(lambda: _preempted(cluster, "batch-1") == 1, 5.0)
    cluster.order("web-1", 0, HOST, priority=SERVICE)
    _until_ready(cluster, "batch-1")


class _UnfairResMan(ResMan):
    """A ResMan that preempts a container for one of the same importance."""

    def step(self, now_s: float, events: Sequence[Struct]) -> Step:
        rows = self.state.containers
        row = rows.get("batch-1.0")
        if row is not None and row.state is ContainerState.READY and "batch-1.1" in rows:
            reason = Reason(code=PREEMPTED, message=f"made room for batch-1.1 on {row.agent}")
            self.state.detach_incarnation("batch-1.0")
            self.state.apply("batch-1.0", SlotMoved(incarnation=row.incarnation, avoid=(), reason=reason))
        return super().step(now_s, events)


def test_checker_notices_a_victim_of_the_same_importance() -> None:
    cluster = _cluster(1, resman=_UnfairResMan)
    cluster.order("batch-1", 2, CORE, priority=BATCH)
    with pytest.raises(Violation, match="made room for"):
        cluster.run(20)
