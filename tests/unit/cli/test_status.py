"""Text from agents cannot add lines to the output about the cluster, an agent or a job."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.cli.cluster.agents import agent_lines
from galaxy.cli.cluster.safemode import status_line
from galaxy.cli.cluster.status import status_lines
from galaxy.cli.job.follow import Progress
from galaxy.cli.job.show import head_lines
from galaxy.cli.tables import job_rows
from galaxy.model.api.safemode import SafeModeView
from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.messages.container import Reason
from galaxy.model.resources import Resources
from galaxy.units import MIB
from tests.unit.cli.views import pod, view

HOSTILE = "x\x1b[2J\x9b1A\r\nAgents    3 alive"


def test_text_of_an_agent_cannot_add_lines_to_the_status() -> None:
    reason = Reason(code="agent-refused", message=HOSTILE)
    leader = LeaderView(role="resman", address=HOSTILE, epoch=1, since_s=1.0)
    cluster = ClusterStatusView(leaders=(leader,), refused=(reason,), safe_mode=reason)
    lines = status_lines(cluster, 10.0)
    assert len(lines) == 10
    assert all(line.isprintable() for line in lines)


def test_text_of_an_agent_cannot_add_lines_to_the_output_about_it() -> None:
    info = AgentInfo(
        agent="h1", address=HOSTILE, boot="b", version=HOSTILE, cpu_milli=1, memory_bytes=1, disk_bytes=1,
        pool=HOSTILE, tags=(HOSTILE,), mode=HOSTILE, kernel=HOSTILE, cgroup=HOSTILE, enforced=(HOSTILE,),
    )  # fmt: skip
    agent = AgentView(
        agent="h1", state=AgentState.ALIVE, info=info, trouble=HOSTILE, containers=(HOSTILE,), beat_s=1.0
    )
    assert all(line.isprintable() for line in agent_lines(agent, 10.0))


def test_text_of_an_agent_cannot_add_lines_to_the_output_about_a_job() -> None:
    job = view(pod(0, agent=HOSTILE))
    assert all(line.isprintable() for line in head_lines(job, 10.0, False))
    assert all(line.isprintable() for line in Progress(0.0).changes(job))


def test_safe_mode_is_named_once_in_the_status_and_in_its_own_line() -> None:
    reason = Reason(code="manual", message="safe mode: entered by root: new switch")
    lines = status_lines(ClusterStatusView(leaders=(), safe_mode=reason), 10.0)
    assert "Safe mode entered by root: new switch" in lines
    safe_mode = SafeModeView(active=True, since_s=5.0, code=reason.code, message=reason.message)
    assert status_line(safe_mode, 10.0) == "Safe mode is on for 5s: entered by root: new switch"


def test_sizes_in_force_are_shown_beside_those_asked_for() -> None:
    asked = Resources(cpu_milli=9000, memory_bytes=64 * MIB)
    has = replace(asked, cpu_milli=2000)
    job = view(pod(0))
    summary = replace(job.summary, cpu_milli=9000, memory_bytes=64 * MIB, in_force=has)
    lines = head_lines(replace(job, summary=summary), 10.0, False)
    (line,) = [line for line in lines if line.startswith("Resources")]
    assert line == "Resources cpu 9, memory 64 MiB, disk 0 B; in force: cpu 2, memory 64 MiB, disk 0 B"
    titles, (row,) = job_rows([summary], 10.0)
    cells = dict(zip(titles, row, strict=True))
    assert (cells["CPU"], cells["MEMORY"]) == ("2 -> 9", "64 MiB")
