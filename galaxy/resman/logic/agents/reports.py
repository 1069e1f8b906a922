"""Agents' reports: agents that join and return, and which reports are accepted."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.ids import HOST
from galaxy.model.messages.agent import AgentInfo, AgentReport, AgentState
from galaxy.model.stored.agent import AgentRecord, first_record
from galaxy.resman.logic.agents.observed import compare
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.state import ResManState, open_status
from galaxy.scheduler.cluster_view import PlacementStatus

NEWER_MAX: Final = 1000
"""An agent that reported more containers than this since its last full report is asked for another."""
NEWER_KEPT_MAX: Final = 2 * NEWER_MAX
"""Reports of more containers than this are dropped as if lost, until the agent sends a full one."""


def on_report(state: ResManState, report: AgentReport) -> None:
    """Apply a report, except where a newer report was applied."""
    agent = report.agent
    state.unread.discard(agent)
    if agent not in state.watches and not _join(state, report):
        return
    watch = state.watch_to_change(agent)
    if not _is_current(state, watch, report):
        return
    if not report.full and len(watch.newer_serials) + len(report.containers) > NEWER_KEPT_MAX:
        state.request_report(agent)
        return
    record = state.agents[agent]
    if record.state is AgentState.DEAD and not (report.full and state.heartbeats.is_recent(watch.row)):
        return  # It stays dead until it has a recent heartbeat and sends a full report.
    if report.info is not None and report.info.agent == agent and report.serial >= watch.full_serial:
        _update_info(state, record, report.info)
    compare(state, watch, report)
    if not report.full and len(watch.newer_serials) > NEWER_MAX:
        state.request_report(agent)
    if report.full:
        _record_full_report(watch, report)
        if record.state is AgentState.DEAD:
            _on_return(state, agent)
    elif not watch.has_full_report:
        state.request_report(agent)


def _join(state: ResManState, report: AgentReport) -> bool:
    """Add an unknown agent if the report is full; otherwise ask for a full report."""
    if not HOST.fullmatch(report.agent):
        return False
    info = report.info
    if not report.full or info is None or info.agent != report.agent:
        state.request_report(report.agent)
        return False
    record = first_record(info, state.now_s, state.registrations.get(info.agent))
    state.registrations.drop(info.agent)
    state.agents.put(report.agent, record)
    watch = state.watch_agent(record, open_status(record))
    state.heartbeats.record([watch.row], [state.heartbeats.read_s])
    state.record("agent.joined", report.agent, f"pool {record.pool}, mode {info.mode}")
    return True


def _is_current(state: ResManState, watch: AgentWatch, report: AgentReport) -> bool:
    """Return whether a report is from the current boot of its agent; an unknown boot becomes current."""
    if report.boot == watch.boot:
        return True
    if report.boot in watch.past_boots:
        return False
    watch.set_boot(report.boot, state.heartbeats.read_s)
    return True


def _update_info(state: ResManState, record: AgentRecord, info: AgentInfo) -> None:
    """Store what changed of an agent's inventory. Its pool and tags stay those of the record."""
    if info == record.info:
        return
    changed = replace(record, info=info)
    state.agents.put(record.agent, changed)
    row = state.view.row(record.agent)
    state.view.join(changed, PlacementStatus(int(state.view.status[row])))
    if info.address != record.info.address:
        for key in state.containers.where("agent", record.agent):
            container = state.containers[key]
            if key == container.container:
                state.outbox.changed_slots.setdefault(container.group, {})[key] = None


def _record_full_report(watch: AgentWatch, report: AgentReport) -> None:
    if report.serial >= watch.full_serial:
        watch.full_serial, watch.has_full_report = report.serial, True
        watch.newer_serials = {
            key: serial for key, serial in watch.newer_serials.items() if serial > report.serial
        }


def _on_return(state: ResManState, agent: str) -> None:
    """Mark a dead agent alive again, after its full report was applied."""
    record = replace(state.agents[agent], state=AgentState.ALIVE, since_s=state.now_s, left=0)
    state.agents.put(agent, record)
    state.view.set_status(agent, open_status(record))
    state.lost_agents.pop(agent, None)
    state.resend_to(agent)
    state.record("agent.returned", agent)
