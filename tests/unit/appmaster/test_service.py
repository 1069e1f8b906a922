"""Agents and the cluster, from stored rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from galaxy.appmaster.stored_queries import StoredQueries
from galaxy.driver.interfaces import Grant
from galaxy.errors import NotFound
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.body import Body
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import ListJobs
from galaxy.model.api.request import Request
from galaxy.model.api.views import ClusterStatusView
from galaxy.model.base import Struct, encode
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.messages.container import Reason
from galaxy.model.resources import Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.cluster import AgentLoad, AgentSums, JobSums
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.unit.appmaster.world import World, batch, service


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
    """Two agents, one of them dead, and what the leaders store about them and about jobs."""
    nexus = MemoryNexus(lambda: 1000.0)
    asked, total = Resources(cpu_milli=107), agent("h1").info.resources
    load = AgentLoad(agent="h1", total=total, assigned=asked, containers=("web-1.0",))
    sums = AgentSums(agents={"alive": 1, "dead": 1}, total=total, assigned=asked)
    store(
        nexus,
        "resman",
        {
            ("agents", "h1"): agent("h1"),
            ("agents", "h2"): agent("h2", AgentState.DEAD),
            ("loads", "h1"): load,
            ("sums", "all"): sums,
            ("cluster", "safe-mode"): Reason(code="safe-mode", message="2 of 3 agents are missing"),
        },
    )
    store(nexus, "appmaster", {("sums", "all"): JobSums(jobs={"running": 1}, pods={"running": 3})})
    nexus.send_heartbeat("h1", boot="b", containers=0, pods=0)
    return nexus


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


def test_status_of_a_cluster_without_agents_and_jobs_is_empty() -> None:
    answer = StoredQueries(MemoryNexus(lambda: 1000.0)).answer(request(ClusterStatus()))
    assert answer is not None and isinstance(answer.result, ClusterStatusView)
    assert (answer.result.agents, answer.result.jobs, answer.result.pods) == ({}, {}, {})


def test_pages_of_agents_are_complete_and_read_only_their_own_rows() -> None:
    nexus = CountingNexus(lambda: 1000.0)
    names = [f"h{number:02}" for number in range(25)]
    store(nexus, "resman", {("agents", name): agent(name) for name in names})
    listed: list[str] = []
    after, pages = "", 0
    while after or not pages:
        nexus.most = 0
        answer = StoredQueries(nexus).answer(request(ListAgents(limit=10, after=after)))
        assert answer is not None and isinstance(answer.result, AgentList)
        listed += [view.agent for view in answer.result.agents]
        after, pages = answer.result.next, pages + 1
        assert nexus.most <= 10
    assert (listed, pages) == (names, 3)


def test_numbers_of_jobs_and_pods_follow_every_change_and_a_failover() -> None:
    world = World()
    rows = world.master.state
    job = world.submit(service())
    world.settle(job)
    world.submit(batch())
    for act in (lambda: world.run(1.0), lambda: world.do("stop", job), world.failover):
        act()
        world.run(3.0)
        rows = world.master.state
        sums = rows.sums["all"]
        assert sums.jobs == dict(Counter(str(row.state) for row in rows.jobs.values()))
        assert sums.pods == dict(Counter(str(row.phase) for row in rows.pods.values()))
    assert sums.jobs == {"finished": 1, "stopped": 1}


class CountingNexus(MemoryNexus):
    """Remembers the most rows that one call has asked for."""

    most = 0

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[Any]) -> dict[str, Any]:
        self.most = max(self.most, len(names))
        return super().read_some(role, table, names, kind)


def test_other_requests_are_left_to_the_loop(nexus: MemoryNexus) -> None:
    assert StoredQueries(nexus).answer(request(ListJobs())) is None
