"""What operators change of machines: it is placed accordingly, audited, and kept whatever dies."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.api.body import Body
from galaxy.model.api.drains import DrainAgents, OnlineAgents, PlanDrain, ShowDrains
from galaxy.model.api.machines import (
    LABELS_MAX,
    TAGS_MAX,
    AddAgent,
    CordonAgents,
    CreatePool,
    LabelAgents,
    ListMachineAudit,
    ListMachines,
    ListPools,
    ListTags,
    MovePool,
    RemoveAgents,
    RemovePool,
    TagAgents,
    UncordonAgents,
    UntagAgents,
)
from galaxy.model.api.safemode import EnterSafeMode, LeaveSafeMode, SafeModeView, ShowSafeMode
from galaxy.model.api.views import AgentView
from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.names import RESMAN
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from tests.unit.resman.cluster import Cluster, demand, info
from tests.unit.resman.operators import ANN, OPERATOR, USER, as_root, ask, kind, refused, tell_users

CHANGES: tuple[Body[Any], ...] = (
    CordonAgents(agents=("h1",)),
    UncordonAgents(agents=("h1",)),
    AddAgent(agent="h9"),
    RemoveAgents(agents=("h1",), force=True),
    LabelAgents(agents=("h1",), labels={"rack": "r1"}),
    CreatePool(pool="far"),
    RemovePool(pool="main"),
    MovePool(agents=("h1",), pool="main"),
    TagAgents(tags=("ssd",), agents=("h1",)),
    UntagAgents(tags=("ssd",), agents=("h1",)),
    DrainAgents(agents=("h1",)),
    OnlineAgents(agents=("h1",)),
    EnterSafeMode(),
    LeaveSafeMode(),
)
QUERIES: tuple[Body[Any], ...] = (
    ListMachines(),
    ListPools(),
    ListTags(),
    ListMachineAudit(),
    ShowDrains(agents=("h1",)),
    PlanDrain(agents=("h1",)),
)


@pytest.fixture
def cluster() -> Cluster:
    started = Cluster(info("h1"), info("h2"), info("h3"))
    tell_users(started, OPERATOR, USER)
    return started


def shown(cluster: Cluster, agent: str) -> AgentView:
    return as_root(cluster, ListMachines(agent=agent)).agents[0]


def restart_all(cluster: Cluster) -> None:
    """Lose the leader, and restart every agent with the flags that it was started with."""
    for host in cluster.hosts.values():
        host.crash()
    cluster.failover(RESMAN)
    cluster.run(15)


@pytest.mark.parametrize("body", CHANGES, ids=lambda body: body.op)
def test_change_by_anybody_but_an_operator_is_refused_and_changes_nothing(
    cluster: Cluster, body: Body[Any]
) -> None:
    before = cluster.stored(RESMAN, "agents", cluster.resman.state.agents.kind)
    assert kind(ask(cluster, body, user="bob", token="a token of another")) == "refused"
    assert as_root(cluster, ListMachineAudit()).records == ()
    assert kind(ask(cluster, body, user="ann", token=ANN)) == "refused"
    assert cluster.stored(RESMAN, "agents", cluster.resman.state.agents.kind) == before
    (record,) = as_root(cluster, ListMachineAudit()).records
    assert (record.user, record.op, record.result) == ("ann", body.op, "refused")


@pytest.mark.parametrize("body", QUERIES, ids=lambda body: body.op)
def test_query_by_anybody_but_an_operator_is_refused(cluster: Cluster, body: Body[Any]) -> None:
    assert kind(ask(cluster, body, user="ann", token="a token of another")) == "refused"
    problem = ask(cluster, body, user="ann", token=ANN).problem
    assert problem is not None
    assert (problem.kind, problem.message) == ("refused", f'user "ann" may not ask {body.op}')


def test_cordoned_agent_gets_nothing_new_and_keeps_what_it_has(cluster: Cluster) -> None:
    cluster.order("web", 3)
    cluster.settle()
    as_root(cluster, CordonAgents(agents=("h1", "h2"), reason="fan fails"))
    cluster.order("db", 3)
    cluster.settle()
    assert set(cluster.agents_of("web")) == {"h1", "h2", "h3"}
    assert set(cluster.agents_of("db")) == {"h3"}
    cordon = shown(cluster, "h1").cordon
    assert cordon is not None and (cordon.by, cordon.reason) == ("root", "fan fails")


def test_waiting_containers_are_placed_as_soon_as_an_agent_is_uncordoned(cluster: Cluster) -> None:
    as_root(cluster, CordonAgents(agents=("h1", "h2", "h3")))
    cluster.order("web", 1)
    cluster.settle()
    reason = cluster.current("web")[0].reason
    assert reason is not None and reason.code == "cordoned"
    as_root(cluster, UncordonAgents(agents=("h2",)))
    cluster.settle()
    assert cluster.agents_of("web") == ["h2"]


def test_what_operators_set_survives_restarts_of_agents_and_of_the_leader(cluster: Cluster) -> None:
    as_root(cluster, CreatePool(pool="far"))
    as_root(cluster, MovePool(agents=("h1",), pool="far"))
    as_root(cluster, TagAgents(tags=("ssd", "fast"), agents=("h1", "h2")))
    as_root(cluster, UntagAgents(tags=("fast",), agents=("h2",)))
    as_root(cluster, LabelAgents(agents=("h1",), labels={"rack": "r1", "zone": "north"}))
    as_root(cluster, LabelAgents(agents=("h1",), labels={"rack": "r2"}, remove=("zone",)))
    as_root(cluster, CordonAgents(agents=("h3",), reason="new disk"))
    before = {name: shown(cluster, name) for name in ("h1", "h2", "h3")}
    restart_all(cluster)
    for name, view in before.items():
        now = shown(cluster, name)
        assert now.state is AgentState.ALIVE
        assert (now.info.pool, now.info.tags, now.labels, now.cordon) == (
            view.info.pool, view.info.tags, view.labels, view.cordon,
        )  # fmt: skip
    assert (before["h1"].info.pool, before["h1"].labels) == ("far", {"rack": "r2"})
    assert [(tag.tag, tag.agents) for tag in as_root(cluster, ListTags()).tags] == [
        ("fast", ("h1",)),
        ("ssd", ("h1", "h2")),
    ]


def test_containers_go_where_pool_and_tags_are_now(cluster: Cluster) -> None:
    as_root(cluster, CreatePool(pool="far"))
    cluster.order("web", 1, demand(pools=("far",)))
    cluster.order("db", 1, demand(tag="ssd"))
    cluster.settle()
    assert cluster.agents_of("web") == cluster.agents_of("db") == []
    as_root(cluster, MovePool(agents=("h2",), pool="far"))
    as_root(cluster, TagAgents(tags=("ssd",), agents=("h3",)))
    cluster.settle()
    assert (cluster.agents_of("web"), cluster.agents_of("db")) == (["h2"], ["h3"])


def test_pool_is_removed_only_when_no_agent_is_in_it_or_registered_for_it(cluster: Cluster) -> None:
    as_root(cluster, CreatePool(pool="far"))
    as_root(cluster, AddAgent(agent="h9", pool="far"))
    as_root(cluster, MovePool(agents=("h1",), pool="far"))
    counts = [(pool.pool, pool.agents, pool.registered) for pool in as_root(cluster, ListPools()).pools]
    assert counts == [("far", {"alive": 1}, 1), ("main", {"alive": 2}, 0)]
    error, text = refused(cluster, RemovePool(pool="far"))
    assert error == "conflict" and "h1" in text and "h9" in text
    as_root(cluster, MovePool(agents=("h1",), pool="main"))
    as_root(cluster, RemoveAgents(agents=("h9",)))
    as_root(cluster, RemovePool(pool="far"))
    assert [pool.pool for pool in as_root(cluster, ListPools()).pools] == ["main"]


def test_pool_that_nobody_made_is_not_found_with_the_way_out(cluster: Cluster) -> None:
    error, text = refused(cluster, MovePool(agents=("h1",), pool="mian"))
    assert error == "not-found" and "did you mean main?" in text and "galaxy pool create mian" in text


def test_change_of_several_agents_is_made_on_all_or_none(cluster: Cluster) -> None:
    error, text = refused(cluster, CordonAgents(agents=("h1", "h4")))
    assert error == "not-found" and '"h4"' in text and "nothing was changed" in text
    assert shown(cluster, "h1").cordon is None


def test_repeated_change_names_what_was_so_before(cluster: Cluster) -> None:
    as_root(cluster, CordonAgents(agents=("h1",), reason="x"))
    view = as_root(cluster, CordonAgents(agents=("h1", "h2"), reason="x"))
    assert (view.agents, view.changed) == (("h1", "h2"), ("h2",))


def test_cordon_without_a_reason_keeps_the_reason_that_is_there(cluster: Cluster) -> None:
    as_root(cluster, CordonAgents(agents=("h1",), reason="fan fails"))
    view = as_root(cluster, CordonAgents(agents=("h1", "h2")))
    assert view.changed == ("h2",)
    cordon = shown(cluster, "h1").cordon
    assert cordon is not None and cordon.reason == "fan fails"
    as_root(cluster, CordonAgents(agents=("h1",), reason="new fan"))
    cordon = shown(cluster, "h1").cordon
    assert cordon is not None and cordon.reason == "new fan"


def test_agent_has_bounded_tags_and_labels(cluster: Cluster) -> None:
    as_root(cluster, TagAgents(tags=tuple(f"t{n}" for n in range(TAGS_MAX)), agents=("h1",)))
    error, text = refused(cluster, TagAgents(tags=("more",), agents=("h2", "h1")))
    assert error == "usage" and f"h1 would have {TAGS_MAX + 1} tags" in text
    assert shown(cluster, "h2").info.tags == ()
    as_root(cluster, LabelAgents(agents=("h1",), labels={f"k{n}": "v" for n in range(LABELS_MAX)}))
    error, text = refused(cluster, LabelAgents(agents=("h1",), labels={"more": "v"}))
    assert error == "usage" and f"h1 would have {LABELS_MAX + 1} labels" in text


def test_registered_agent_joins_as_registered(cluster: Cluster) -> None:
    as_root(cluster, CreatePool(pool="far"))
    as_root(cluster, AddAgent(agent="h4", pool="far", tags=("ssd",), labels={"rack": "r4"}))
    cluster.failover(RESMAN)
    cluster.run(3)
    assert [row.agent for row in as_root(cluster, ListMachines()).registered] == ["h4"]
    cluster.add_host(info("h4", pool="main", tags=("own",)))
    cluster.run(5)
    view = shown(cluster, "h4")
    assert (view.info.pool, view.info.tags, view.labels) == ("far", ("own", "ssd"), {"rack": "r4"})
    assert as_root(cluster, ListMachines()).registered == ()


def test_agent_that_has_joined_is_not_registered(cluster: Cluster) -> None:
    assert refused(cluster, AddAgent(agent="h1"))[0] == "conflict"


def test_agent_that_is_alive_is_not_removed_without_force(cluster: Cluster) -> None:
    cluster.order("web", 3)
    cluster.settle()
    error, text = refused(cluster, RemoveAgents(agents=("h1",)))
    assert error == "conflict" and "not dead: h1" in text and "h1 holds 1 containers" in text
    assert "galaxy agent drain h1" in text
    assert cluster.agents_of("web") == ["h1", "h2", "h3"]


def test_dead_agent_is_forgotten_with_everything_that_redis_has_of_it(cluster: Cluster) -> None:
    cluster.order("web", 3)
    cluster.settle()
    cluster.hosts["h1"].power_off(1e6)
    cluster.run(60)
    as_root(cluster, RemoveAgents(agents=("h1",)))
    cluster.run(5)
    assert [view.agent for view in as_root(cluster, ListMachines()).agents] == ["h2", "h3"]
    assert {beat.agent for beat in cluster.nexus.heartbeats(RESMAN).heartbeats} == {"h2", "h3"}
    assert set(cluster.stored(RESMAN, "loads", cluster.resman.state.loads.kind)) == {"h2", "h3"}
    cluster.order("db", 4)
    cluster.settle()
    assert set(cluster.agents_of("db")) == {"h2", "h3"}
    cluster.failover(RESMAN)
    cluster.run(5)
    assert [view.agent for view in as_root(cluster, ListMachines()).agents] == ["h2", "h3"]


def test_removed_agent_that_returns_joins_as_a_new_one(cluster: Cluster) -> None:
    as_root(cluster, TagAgents(tags=("ssd",), agents=("h1",)))
    cluster.cut_off("h1")
    cluster.run(60)
    as_root(cluster, RemoveAgents(agents=("h1",)))
    cluster.run(5)
    cluster.reconnect()
    cluster.run(10)
    view = shown(cluster, "h1")
    assert (view.state, view.info.tags) == (AgentState.ALIVE, ())
    cluster.order("web", 3)
    cluster.settle()
    assert cluster.agents_of("web") == ["h1", "h2", "h3"]


def test_removal_with_force_places_containers_elsewhere_and_an_agent_that_runs_joins_again(
    cluster: Cluster,
) -> None:
    cluster.order("web", 3)
    cluster.settle()
    as_root(cluster, RemoveAgents(agents=("h1",), force=True))
    cluster.run(10)
    workers: dict[str, SimulatedAppWorker] = cluster.workers()
    assert set(workers) == {"web.0", "web.1", "web.2"}
    assert shown(cluster, "h1").state is AgentState.ALIVE
    assert len(cluster.ready()) == 3


@pytest.mark.parametrize("body", [
    DrainAgents(agents=("h1",)),
    DrainAgents(agents=("h1",), deadline_s=2.0),
    DrainAgents(agents=("h1",), force=True),
    DrainAgents(agents=("h1",), offline=True),
], ids=["drain", "deadline", "force", "offline"])  # fmt: skip
def test_agent_that_was_drained_is_removed_and_joins_again_open(cluster: Cluster, body: DrainAgents) -> None:
    as_root(cluster, body)
    cluster.run(5)
    cluster.cut_off("h1")
    cluster.run(60)
    as_root(cluster, RemoveAgents(agents=("h1",)))
    cluster.run(5)
    assert [view.agent for view in as_root(cluster, ListMachines()).agents] == ["h2", "h3"]
    cluster.reconnect()
    cluster.run(10)
    assert (shown(cluster, "h1").state, shown(cluster, "h1").drain) == (AgentState.ALIVE, None)
    cluster.order("web", 3)
    cluster.settle()
    assert cluster.agents_of("web") == ["h1", "h2", "h3"]


@pytest.mark.parametrize("holds", [0, 3])
def test_agent_that_is_being_drained_is_removed_with_force(cluster: Cluster, holds: int) -> None:
    cluster.order("web", holds)
    cluster.settle()
    as_root(cluster, DrainAgents(agents=("h1",)))
    as_root(cluster, RemoveAgents(agents=("h1",), force=True))
    cluster.run(10)
    view = shown(cluster, "h1")
    assert (view.state, view.drain) == (AgentState.ALIVE, None)
    assert len(cluster.ready()) == holds


def test_removal_in_a_step_that_raises_has_no_effect(cluster: Cluster) -> None:
    cluster.hosts["h1"].power_off(1e6)
    cluster.run(60)
    state = cluster.resman.state
    state.forget_agent("h1")
    for table in cluster.resman.tables.values():
        table.discard()
    cluster.resman.recover(cluster.now_s)
    cluster.run(5)
    assert shown(cluster, "h1").state is AgentState.DEAD


def test_audit_of_resman_has_who_did_what_to_which_machine(cluster: Cluster) -> None:
    as_root(cluster, CordonAgents(agents=("h1", "h2")))
    refused(cluster, RemoveAgents(agents=("h3",)))
    as_root(cluster, EnterSafeMode())
    cluster.failover(RESMAN)
    cluster.run(3)
    records = as_root(cluster, ListMachineAudit()).records
    assert [(record.user, record.op, record.target, record.result) for record in records] == [
        ("root", "galaxy.agent.cordon", "h1 h2", "ok"),
        ("root", "galaxy.agent.remove", "h3", "conflict"),
        ("root", "galaxy.safemode.enter", "safe-mode", "ok"),
    ]
    assert {record.leader for record in records} == {RESMAN}
    assert [record.target for record in as_root(cluster, ListMachineAudit(target="h2")).records] == ["h1 h2"]


def test_audit_says_which_hosts_were_drained_to_be_offline(cluster: Cluster) -> None:
    as_root(cluster, DrainAgents(agents=("h1",)))
    as_root(cluster, DrainAgents(agents=("h1", "h2"), offline=True))
    records = as_root(cluster, ListMachineAudit(target="h1")).records
    assert [record.target for record in records] == ["h1", "offline h1 h2"]


def test_sums_count_the_agents_that_operators_have_closed(cluster: Cluster) -> None:
    as_root(cluster, CordonAgents(agents=("h1", "h2")))
    as_root(cluster, DrainAgents(agents=("h2",), offline=True))
    as_root(cluster, DrainAgents(agents=("h3",)))
    cluster.settle()
    kind_of = cluster.resman.state.sums.kind
    assert cluster.stored(RESMAN, "sums", kind_of)["all"].closed == {
        "cordoned": 1, "drained": 1, "offline": 1,
    }  # fmt: skip
    as_root(cluster, OnlineAgents(agents=("h2", "h3")))
    cluster.settle()
    assert cluster.stored(RESMAN, "sums", kind_of)["all"].closed == {"cordoned": 2}


def test_reason_of_a_drain_stays_when_the_host_goes_offline(cluster: Cluster) -> None:
    as_root(cluster, DrainAgents(agents=("h1",), reason="new disk"))
    as_root(cluster, DrainAgents(agents=("h1",), offline=True))
    drain = shown(cluster, "h1").drain
    assert drain is not None and (drain.reason, drain.offline) == ("new disk", True)


# ---- safe mode by hand


def safe(cluster: Cluster) -> SafeModeView:
    return as_root(cluster, ShowSafeMode())


def test_safe_mode_by_hand_stays_across_leaders_and_nothing_is_placed(cluster: Cluster) -> None:
    entered = as_root(cluster, EnterSafeMode(reason="the switch is replaced"))
    assert (entered.active, entered.by, entered.code) == (True, "root", "manual")
    cluster.order("web", 1)
    cluster.run(5)
    cluster.failover(RESMAN)
    cluster.run(30)
    view = safe(cluster)
    assert (view.active, view.by, view.since_s) == (True, "root", entered.since_s)
    assert "the switch is replaced" in view.message
    assert cluster.agents_of("web") == []
    cluster.hosts["h1"].power_off(1e6)
    cluster.run(60)
    assert shown(cluster, "h1").state is AgentState.SUSPECT
    assert as_root(cluster, LeaveSafeMode()).active is False
    cluster.settle()
    assert len(cluster.agents_of("web")) == 1


def test_safe_mode_that_is_entered_again_keeps_since_when_it_is_on(cluster: Cluster) -> None:
    entered = as_root(cluster, EnterSafeMode(reason="first"))
    cluster.run(30)
    again = as_root(cluster, EnterSafeMode(reason="second"))
    assert (again.since_s, "second" in again.message) == (entered.since_s, True)
    assert safe(cluster).since_s == entered.since_s


def test_safe_mode_by_hand_after_a_mass_loss_is_on_since_the_loss(cluster: Cluster) -> None:
    cluster.cut_off("h1", "h2")
    cluster.run(40)
    lost = safe(cluster)
    assert lost.active and not lost.by
    by_hand = as_root(cluster, EnterSafeMode())
    assert (by_hand.by, by_hand.since_s) == ("root", lost.since_s)


def test_safe_mode_that_was_entered_by_hand_and_by_a_mass_loss_stays_until_it_is_left_by_hand(
    cluster: Cluster,
) -> None:
    as_root(cluster, EnterSafeMode(reason="maintenance"))
    cluster.cut_off("h1", "h2")
    cluster.run(40)
    cluster.reconnect()
    cluster.run(10)
    assert safe(cluster).by == "root"
    assert as_root(cluster, LeaveSafeMode()).active is False


def test_automatic_safe_mode_is_left_by_itself_when_the_hosts_return(cluster: Cluster) -> None:
    cluster.cut_off("h1", "h2")
    cluster.run_until(lambda: safe(cluster).active, 40)
    assert (safe(cluster).code, safe(cluster).by) == ("mass-loss", "")
    cluster.reconnect()
    cluster.run_until(lambda: not safe(cluster).active, 20)


def test_leaving_by_hand_confirms_a_mass_loss(cluster: Cluster) -> None:
    cluster.order("web", 3)
    cluster.settle()
    cluster.cut_off("h1", "h2")
    cluster.run_until(lambda: safe(cluster).active, 40)
    assert as_root(cluster, LeaveSafeMode()).active is False
    cluster.run(60)
    assert safe(cluster).active is False
    assert cluster.agents_of("web") == ["h3", "h3", "h3"]


def test_leaving_is_refused_when_it_is_off(cluster: Cluster) -> None:
    assert refused(cluster, LeaveSafeMode())[0] == "conflict"
