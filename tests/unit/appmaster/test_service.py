"""Agents and the cluster, from stored rows."""

from typing import Any

import pytest

from galaxy.appmaster.cluster_queries import REFUSED_MAX, refused_agents
from galaxy.appmaster.stored_queries import StoredQueries
from galaxy.driver.interfaces import Grant
from galaxy.errors import NotFound
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.body import Body
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import ListJobs
from galaxy.model.api.request import Request
from galaxy.model.api.views import ClusterStatusView
from galaxy.model.base import WIRE_VERSION, Struct, encode
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.messages.agent import AgentInfo, AgentState, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, GroupOrder, Reason
from galaxy.model.resources import Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.unit.appmaster.world import World, service


def request(body: Body[Any]) -> Request:
    return Request(op=body.op, key="k", reply="r", deadline_s=2_000_000_000.0, body=body)


def agent(name: str, state: AgentState = AgentState.ALIVE) -> AgentRecord:
    info = AgentInfo(
        agent=name,
        address=name,
        boot="b",
        version="1",
        cpu_milli=4000,
        memory_bytes=8 << 30,
        disk_bytes=100 << 30,
    )
    return AgentRecord(agent=name, info=info, state=state)


@pytest.fixture
def nexus() -> MemoryNexus:
    """Two agents, one of them dead; a container on h1, another one leaving it; jobs of a real AppMaster."""
    nexus = MemoryNexus(lambda: 1000.0)
    order = GroupOrder(group="web-1", epoch=1, serial=1, replicas=1, demand=demand_of(service()))
    store(
        nexus,
        "resman",
        {
            ("agents", "h1"): agent("h1"),
            ("agents", "h2"): agent("h2", AgentState.DEAD),
            ("groups", "web-1"): Group(group="web-1", order=order),
            ("containers", "web-1.0"): container(ContainerState.READY, 2),
            ("containers", "web-1.0#1@h1"): container(ContainerState.DESTROYING, 1, cpu_milli=7),
            ("containers", "web-1.1"): container(ContainerState.PENDING, 0),
            ("cluster", "safe-mode"): Reason(code="safe-mode", message="2 of 3 agents are missing"),
        },
    )
    world = World()
    world.settle(world.submit(service()))
    state = world.master.state
    store(
        nexus,
        "appmaster",
        {("jobs", key): state.jobs[key] for key in state.jobs}
        | {("pods", key): state.pods[key] for key in state.pods},
    )
    nexus.send_heartbeat("h1", boot="b", containers=0, pods=0)
    return nexus


def container(state: ContainerState, incarnation: int, *, cpu_milli: int = 0) -> Container:
    return Container(
        container="web-1.0",
        group="web-1",
        slot=0,
        incarnation=incarnation,
        state=state,
        agent="" if state is ContainerState.PENDING else "h1",
        resources=Resources(cpu_milli=cpu_milli),
    )


def store(nexus: MemoryNexus, role: str, rows: dict[tuple[str, str], Struct]) -> None:
    grant = nexus.campaign(role, "test", ttl_s=100.0, address=f"{role}@h1")
    assert isinstance(grant, Grant)
    changes = [TableChange(table=table, key=key, value=encode(row)) for (table, key), row in rows.items()]
    nexus.commit(grant, 1, changes, ())


def test_agents_are_listed_with_what_is_assigned_of_them(nexus: MemoryNexus) -> None:
    answer = StoredQueries(nexus).answer(request(ListAgents()))
    assert answer is not None and isinstance(answer.result, AgentList)
    first, second = answer.result.agents
    assert (first.agent, first.state, first.beat_s) == ("h1", "alive", 1000.0)
    assert first.cpu_assigned_milli == 107
    assert first.containers == ("web-1.0",)
    assert (second.agent, second.state, second.containers) == ("h2", "dead", ())


def test_unknown_agent_is_not_found_with_near_misses(nexus: MemoryNexus) -> None:
    with pytest.raises(NotFound, match="did you mean"):
        StoredQueries(nexus).answer(request(ListAgents(agent="h3")))


def test_status_counts_jobs_pods_and_agents_and_totals_live_agents(nexus: MemoryNexus) -> None:
    answer = StoredQueries(nexus).answer(request(ClusterStatus()))
    assert answer is not None and isinstance(answer.result, ClusterStatusView)
    view = answer.result
    assert view.agents == {"alive": 1, "dead": 1}
    assert view.jobs == {"running": 1}
    assert view.pods == {"running": 3}
    assert (view.cpu_total_milli, view.cpu_assigned_milli) == (4000, 107)
    assert view.safe_mode is not None and view.safe_mode.code == "safe-mode"
    assert {leader.role for leader in view.leaders} == {"resman", "appmaster"}


def test_refused_agents_are_listed_while_they_send_heartbeats_up_to_a_limit() -> None:
    far = [Heartbeat(agent=f"h{i:03}", at_s=1000.0 - i, boot="b", wire=99) for i in range(100)]
    near = Heartbeat(agent="near", at_s=1000.0, boot="b", wire=WIRE_VERSION)
    told = refused_agents(HeartbeatsRead(now_s=1000.0, heartbeats=(near, *far)))
    assert len(told) == REFUSED_MAX + 1
    assert told[-1].message.startswith("41 more")
    assert told[0].message.startswith(f"h000: wire version '99' is not {WIRE_VERSION}")
    assert "upgrade the older" in told[0].message
    assert refused_agents(HeartbeatsRead(now_s=2000.0, heartbeats=(near, *far))) == ()


def test_many_invented_agents_hide_none_that_resman_knows() -> None:
    crowd = [Heartbeat(agent=f"fake{i}", at_s=1000.0, boot="b", wire=99) for i in range(30)]
    real = Heartbeat(agent="real", at_s=990.0, boot="b", wire=99)
    told = refused_agents(HeartbeatsRead(now_s=1000.0, heartbeats=(*crowd, real)), {"real"})
    assert told[0].message.startswith("real: ")
    assert told[-1].message.startswith("11 more")


@pytest.mark.parametrize("name", ["h\x1b[2J", "h\n", "", "h" * 64])
def test_refused_agent_whose_name_no_host_can_have_is_counted_and_not_named(name: str) -> None:
    (told,) = refused_agents(
        HeartbeatsRead(now_s=10.0, heartbeats=(Heartbeat(agent=name, at_s=10.0, boot="b", wire=99),))
    )
    assert told.message.startswith("1 under names that no host can have")


def test_other_requests_are_left_to_the_loop(nexus: MemoryNexus) -> None:
    assert StoredQueries(nexus).answer(request(ListJobs())) is None
