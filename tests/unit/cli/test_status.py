"""What is told about a cluster and its agents is one line for each fact, whoever wrote it."""

from __future__ import annotations

from galaxy.cli.cluster.agents import agent_lines
from galaxy.cli.cluster.status import status_lines
from galaxy.cli.job.follow import Progress
from galaxy.cli.job.show import head_lines
from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.messages.container import Reason
from tests.unit.cli.views import pod, view

EVIL = "x\x1b[2J\x9b1A\r\nAgents    3 alive"


def test_no_agent_has_a_say_in_more_than_its_own_line_of_the_status() -> None:
    reason = Reason(code="agent-refused", message=EVIL)
    leader = LeaderView(role="resman", address=EVIL, epoch=1, since_s=1.0)
    cluster = ClusterStatusView(leaders=(leader,), refused=(reason,), safe_mode=reason)
    lines = status_lines(cluster, 10.0)
    assert len(lines) == 10
    assert all(line.isprintable() for line in lines)


def test_no_agent_has_a_say_in_more_than_its_own_facts() -> None:
    info = AgentInfo(
        agent="h1", address=EVIL, boot="b", version=EVIL, cpu_milli=1, memory_bytes=1, disk_bytes=1,
        pool=EVIL, tags=(EVIL,), mode=EVIL, kernel=EVIL, cgroup=EVIL, enforced=(EVIL,),
    )  # fmt: skip
    agent = AgentView(
        agent="h1", state=AgentState.ALIVE, info=info, trouble=EVIL, containers=(EVIL,), beat_s=1.0
    )
    assert all(line.isprintable() for line in agent_lines(agent, 10.0))


def test_no_agent_has_a_say_in_more_than_its_own_line_about_a_job() -> None:
    job = view(pod(0, agent=EVIL))
    assert all(line.isprintable() for line in head_lines(job, 10.0, False))
    assert all(line.isprintable() for line in Progress(0.0).news(job))
