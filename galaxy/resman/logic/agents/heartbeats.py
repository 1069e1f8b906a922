"""Heartbeats: which agents are alive, suspect or dead."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.base import WIRE_VERSION, check_wire
from galaxy.model.messages.agent import AgentState, Heartbeat, HeartbeatsRead
from galaxy.model.messages.trace import agent_cause
from galaxy.resman.logic.agents.refused import refused_agents
from galaxy.resman.logic.agents.safe_mode import SafeMode
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.container_index import DIGEST
from galaxy.resman.logic.state.state import ResManState, open_status
from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.liveness import LivenessChanges

FORGET_S: Final = 20.0
"""Shortest silence after which an agent without a record is forgotten; longer than any reader's gap."""
FORGET_MAX: Final = 100
"""Agents that are forgotten in one reading."""


def on_heartbeats(state: ResManState, safe_mode: SafeMode, reading: HeartbeatsRead) -> None:
    """Record all heartbeats, and set the state of every agent by their age."""
    heartbeats, watches, digests = state.heartbeats, state.watches, state.containers.sums(DIGEST)
    heartbeats.begin_reading(reading.now_s)
    state.unread = set(reading.unread)
    others = any(heartbeat.wire != WIRE_VERSION for heartbeat in reading.heartbeats)
    state.refused_agents = refused_agents(reading, set(state.agents)) if others else ()
    rows, times = [], []
    for heartbeat in reading.heartbeats:
        watch = watches.get(heartbeat.agent)
        if watch is None:
            _on_unknown(state, heartbeat, reading.now_s)
        elif not _is_incompatible(state, heartbeat):
            rows.append(watch.row)
            times.append(heartbeat.at_s)
            if heartbeat.boot != watch.boot or heartbeat.containers != digests.get(heartbeat.agent, 0):
                _on_difference(state, watch, heartbeat)
    # The heartbeats of an incompatible agent do not count, because we cannot read its reports.
    heartbeats.record(rows, times)
    _send_unsent(state, reading)
    changes = heartbeats.classify(state.view.status[: len(state.view)])
    # At the start of a leadership, ages are not known yet: an agent without a heartbeat counts as away.
    starting = safe_mode.automatic is not None and safe_mode.automatic.code == "start"
    away = _without_heartbeat(state) if starting else [*changes.suspect.tolist(), *changes.dead.tolist()]
    known = int((state.view.status[: len(state.view)] != PlacementStatus.DEAD).sum())
    expected = _offline_rows(state)
    safe_mode.update(len(set(away) - expected), known - len(expected))
    leaving = {
        watches[heartbeat.agent].row
        for heartbeat in reading.heartbeats
        if heartbeat.leaving and heartbeat.agent in watches
    }
    _apply_liveness(state, changes, leaving, declare_dead=safe_mode.reason is None)
    for heartbeat in reading.heartbeats:
        _apply_trouble(state, heartbeat)


def _on_unknown(state: ResManState, heartbeat: Heartbeat, now_s: float) -> None:
    """Ask an agent that has no record for a full report, with which it joins.

    What Redis has of an agent without a record that is silent for longer than its orders are valid is
    deleted: an operator has removed it, or it never joined.
    """
    if now_s - heartbeat.at_s > max(state.heartbeats.dead_s, FORGET_S):
        if len(state.outbox.forget) < FORGET_MAX:
            state.outbox.forget.append(heartbeat.agent)
        return
    recent = now_s - heartbeat.at_s <= state.config.suspect_s
    if HOST.fullmatch(heartbeat.agent) and recent and not _is_incompatible(state, heartbeat):
        state.request_report(heartbeat.agent)


def _is_incompatible(state: ResManState, heartbeat: Heartbeat) -> bool:
    """Return whether an agent sends a wire version that we do not read; record it once per boot."""
    try:
        check_wire(heartbeat.wire)
    except BadMessage as error:
        if state.record_incompatible(heartbeat.agent, heartbeat.boot):
            state.record("agent.refused", heartbeat.agent, f"{error.message}; {error.hint}")
        return True
    return False


def _on_difference(state: ResManState, watch: AgentWatch, heartbeat: Heartbeat) -> None:
    """Ask for a full report, because a heartbeat has another boot or digest than our records.

    A digest counts only when nothing of the agent has changed for ``digest_settle_s``, and no command to
    it is unacknowledged.
    """
    digest_settle_s = state.config.digest_settle_s
    if heartbeat.boot != watch.boot:
        # A new leader may have accepted a late report of an earlier boot. The heartbeat is never late.
        if heartbeat.boot in watch.past_boots and heartbeat.at_s > watch.boot_since_s + digest_settle_s:
            state.watch_to_change(heartbeat.agent).set_boot(heartbeat.boot, state.heartbeats.read_s)
        state.request_report(heartbeat.agent)
    elif heartbeat.at_s > watch.changed_s + digest_settle_s and not state.containers.count(
        "unacknowledged", heartbeat.agent
    ):
        state.request_report(heartbeat.agent)


def _send_unsent(state: ResManState, reading: HeartbeatsRead) -> None:
    """Make commands due that were held back until the first heartbeat of their agents."""
    if not state.unsent:
        return
    for heartbeat in reading.heartbeats:
        watch = state.watches.get(heartbeat.agent)
        if watch is not None and state.heartbeats.at_s(watch.row):
            for key in state.unsent.pop(heartbeat.agent, {}):
                state.unacknowledged.restart(key, state.now_s)


def _without_heartbeat(state: ResManState) -> list[int]:
    """Return the rows of agents that are not dead and have no recent heartbeat."""
    status = state.view.status[: len(state.view)].tolist()
    recent = state.heartbeats.is_recent
    return [row for row in range(len(status)) if status[row] != PlacementStatus.DEAD and not recent(row)]


def _offline_rows(state: ResManState) -> set[int]:
    """Return the rows of agents that are offline and not dead: nobody wonders when they are away."""
    rows = set()
    for name in state.draining:
        record = state.agents[name]
        if record.drain is not None and record.drain.offline and record.state is not AgentState.DEAD:
            rows.add(state.watches[name].row)
    return rows


def _apply_liveness(
    state: ResManState, changes: LivenessChanges, leaving: set[int], *, declare_dead: bool
) -> None:
    """Set the state of agents. One of ``leaving`` was stopped on purpose: it is suspect at once."""
    names = state.view.names
    for row in sorted(leaving):
        if state.agents[names[row]].state is AgentState.ALIVE:
            _suspect(state, names[row], "its agent was stopped")
    for row in changes.recent.tolist():
        if row in leaving:
            continue
        record = state.agents[names[row]]
        if record.state is AgentState.DEAD:
            state.request_report(record.agent)  # It stays dead until it has sent a full report.
            continue
        state.view.set_status(record.agent, open_status(record))
        if record.state is AgentState.SUSPECT:
            state.resend_to(record.agent)
        _set_agent_state(state, record.agent, AgentState.ALIVE)
    for row in changes.suspect.tolist():
        _suspect(state, names[row])
    for row in changes.dead.tolist():
        if not declare_dead:
            _suspect(state, names[row])
            continue
        state.view.set_status(names[row], PlacementStatus.DEAD)
        state.lost_agents[names[row]] = None
        _set_agent_state(state, names[row], AgentState.DEAD)


def _suspect(state: ResManState, agent: str, why: str = "") -> None:
    if state.agents[agent].state is not AgentState.SUSPECT:
        state.view.set_status(agent, PlacementStatus.SUSPECT)
        _set_agent_state(state, agent, AgentState.SUSPECT, why)


def _set_agent_state(state: ResManState, agent: str, new: AgentState, why: str = "") -> None:
    record = state.agents[agent]
    if record.state is not new:
        state.cause = agent_cause(agent)
        state.agents.put(agent, replace(record, state=new, since_s=state.now_s))
        state.record(f"agent.{new.value}", agent, why)


def _apply_trouble(state: ResManState, heartbeat: Heartbeat) -> None:
    """Stop placing containers on an agent that reports that it cannot carry out orders."""
    name = heartbeat.agent
    record, watch = state.agents.get(name), state.watches.get(name)
    if record is None or watch is None:
        return
    alive, in_trouble = record.state is AgentState.ALIVE, bool(heartbeat.trouble)
    if watch.in_trouble != (alive and in_trouble):
        state.watch_to_change(name).in_trouble = alive and in_trouble
        if alive:
            state.cause = agent_cause(name)
            state.record("agent.trouble" if in_trouble else "agent.well", name, heartbeat.trouble)
    if alive and in_trouble:
        # The next reading finds its heartbeat recent, and opens it again if the trouble is over.
        state.view.set_status(name, PlacementStatus.SUSPECT)
