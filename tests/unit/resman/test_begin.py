"""State that a new leader derives from the tables equals the state that was updated step by step."""

from typing import Any

import pytest
from msgspec.structs import replace

from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.names import RESMAN
from galaxy.resman.logic import ResMan
from galaxy.resman.logic.state.container_index import DIGEST
from galaxy.resman.logic.state.state import ResManState
from tests.unit.resman.cluster import Cluster, info
from tests.unit.resman.random_run import RandomRun

COLUMNS = ("ports", "creating", "placed")


@pytest.mark.parametrize("seed", range(12))
def test_state_derived_from_tables_equals_the_state_updated_step_by_step(seed: int) -> None:
    run = RandomRun(seed)
    run.order()
    compared = 0
    for _ in range(40):
        run.trouble()
        run.second()
        leader = run.cluster.leaders[RESMAN]
        if leader.leads:
            state = run.cluster.resman.state
            assert facts(successor_of(run.cluster).state) == facts(state)
            compared += len(state.containers)
    assert compared > 20


def successor_of(cluster: Cluster) -> ResMan:
    """Return a ResMan that has begun to lead from what is stored."""
    successor = ResMan(cluster.config)
    cluster.nexus.load(RESMAN, successor.tables.values())
    successor.lead(cluster.leaders[RESMAN].epoch + 1, cluster.now_s)
    return successor


def facts(state: ResManState) -> dict[str, Any]:
    """Return what is derived from tables, by name of agent."""
    view = state.view
    rows = {name: row for row, name in enumerate(view.names)}
    name_of = {row: name for name, row in rows.items()}
    return {
        "free": {name: [int(column[row]) for column in view.free] for name, row in rows.items()},
        "columns": {
            name: [int(getattr(view, column)[row]) for column in COLUMNS] for name, row in rows.items()
        },
        "ports": {port: {name_of[row]: n for row, n in by.items()} for port, by in view.port_rows.items()},
        "groups": {
            group: {name_of[row]: n for row, n in by.items()} for group, by in view.group_rows.items()
        },
        "digests": dict(state.containers.sums(DIGEST)),
        "used": state.quota_usage._used,
        "unacknowledged": sorted(state.unacknowledged),
        "waiting": {group for group in state.groups if state.containers.count("waiting", group)},
    }


def test_new_leader_sends_an_agent_no_order_before_it_has_read_its_heartbeat() -> None:
    cluster = Cluster(info("h1"), info("h2"))
    for host in cluster.hosts.values():
        host.machine.holds_launches = True
    cluster.order("web", 2)
    cluster.settle()
    successor = successor_of(cluster)
    first = successor.step(cluster.now_s, [])
    assert [send for send in first.sends if isinstance(send.body, ContainerOrders)] == []
    read = cluster.nexus.heartbeats()
    beat = next(beat for beat in read.heartbeats if beat.agent == "h1")
    second = successor.step(cluster.now_s, [replace(read, heartbeats=(beat,))])
    orders = [send.body for send in second.sends if isinstance(send.body, ContainerOrders)]
    assert [(order.agent, len(order.create)) for order in orders] == [("h1", 1)]
    assert orders[0].until_s == beat.at_s + cluster.config.order_ttl_s
