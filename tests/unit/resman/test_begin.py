"""State that a new leader derives from the tables equals the state that was updated step by step."""

from typing import Any

import pytest

from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.container import ContainerOrders
from galaxy.resman.logic import ResMan
from galaxy.resman.logic.state.state import ResManState
from tests.unit.resman.old_cluster import Cluster, info
from tests.unit.resman.test_fuzz import RandomRun

COLUMNS = ("ports", "creating", "placed")


@pytest.mark.parametrize("seed", range(12))
def test_state_derived_from_tables_equals_the_state_updated_step_by_step(seed: int) -> None:
    run = RandomRun(seed)
    run.order()
    for _ in range(40):
        run.trouble()
        run.second()
        cluster = run.cluster
        successor = ResMan(cluster.config)
        for name, table in successor.tables.items():
            table.load(cluster.store.get(name, {}).items())
        successor.lead(cluster.epoch + 1, cluster.now_s)
        assert facts(successor.state) == facts(cluster.resman.state)


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
        "digests": {name: watch.digest for name, watch in state.watches.items()},
        "used": state.quota_usage._used,
        "unacknowledged": sorted(state.unacknowledged),
        "waiting": {group for group in state.groups if state.containers.count("waiting", group)},
    }


def test_new_leader_sends_an_agent_no_order_before_it_has_read_its_heartbeat() -> None:
    cluster = Cluster(info("a1"), info("a2"))
    cluster.agents["a1"].slow = cluster.agents["a2"].slow = True
    cluster.order("web", 2)
    cluster.run(0.0)
    cluster.failover()
    first = cluster.step([])
    assert [send for send in first.sends if isinstance(send.body, ContainerOrders)] == []
    beat = cluster.agents["a1"].beat(cluster.now_s)
    second = cluster.step([HeartbeatsRead(now_s=cluster.now_s, beats=(beat,))])
    orders = [send.body for send in second.sends if isinstance(send.body, ContainerOrders)]
    assert [(order.agent, len(order.create)) for order in orders] == [("a1", 1)]
    assert orders[0].until_s == beat.at_s + cluster.config.command_life_s
