"""Heartbeats: which agents are alive, suspect or dead."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.base import check_wire
from galaxy.model.messages.agent import AgentState, Heartbeat, HeartbeatsRead
from galaxy.model.messages.trace import agent_cause
from galaxy.resman.logic.agents.safe_mode import SafeMode
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.state import ResManState, open_status
from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.liveness import Judgement


def on_heartbeats(state: ResManState, safe_mode: SafeMode, reading: HeartbeatsRead) -> None:
    """Apply all heartbeats as Nexus has them, and judge every agent by them."""
    heartbeats, watches = state.heartbeats, state.watches
    heartbeats.begin_reading(reading.now_s)
    rows, times = [], []
    for beat in reading.beats:
        watch = watches.get(beat.agent)
        if watch is None:
            _on_unknown(state, beat, reading.now_s)
        elif not _is_foreign(state, beat):  # A foreign agent counts as away: we cannot read its reports.
            rows.append(watch.row)
            times.append(beat.at_s)
            if beat.boot != watch.boot or beat.containers != watch.digest:
                _on_difference(state, watch, beat)
    heartbeats.record(rows, times)
    _send_unsent(state, reading)
    judged = heartbeats.judge(state.view.status[: len(state.view)])
    known = int((state.view.status[: len(state.view)] != PlacementStatus.DEAD).sum())
    # At the start of a leadership there is no age to judge by: an agent without a heartbeat is away.
    starting = safe_mode.reason is not None and safe_mode.reason.code == "start"
    away = _count_without_heartbeat(state) if starting else len(judged.suspect) + len(judged.dead)
    safe_mode.judge(away, known)
    _apply_judgement(state, judged, declare_dead=safe_mode.reason is None)
    for beat in reading.beats:
        _apply_trouble(state, beat)


def _on_unknown(state: ResManState, beat: Heartbeat, now_s: float) -> None:
    """Ask an agent that has no record for a full report, with which it joins."""
    recent = now_s - beat.at_s <= state.config.suspect_s
    if HOST.fullmatch(beat.agent) and recent and not _is_foreign(state, beat):
        state.request_report(beat.agent)


def _is_foreign(state: ResManState, beat: Heartbeat) -> bool:
    """Return whether an agent speaks a version that we do not read; record it once per boot."""
    try:
        check_wire(beat.wire)
    except BadMessage as error:
        if state.note_foreign(beat.agent, beat.boot):
            state.record("agent.refused", beat.agent, f"{error.message}; {error.hint}")
        return True
    return False


def _on_difference(state: ResManState, watch: AgentWatch, beat: Heartbeat) -> None:
    """Ask for a full report, because boot or digest of a heartbeat are not those that we know.

    A digest counts only when nothing of the agent has changed for ``settle_s`` or is on its way.
    """
    settle_s = state.config.settle_s
    if beat.boot != watch.boot:
        # A new leader may have believed a late report of an earlier boot. The heartbeat is right.
        if beat.boot in watch.old_boots and beat.at_s > watch.boot_since_s + settle_s:
            state.watch_to_change(beat.agent).set_boot(beat.boot, state.heartbeats.read_s)
        state.request_report(beat.agent)
    elif beat.at_s > watch.changed_s + settle_s and not state.containers.count("unacknowledged", beat.agent):
        state.request_report(beat.agent)


def _send_unsent(state: ResManState, reading: HeartbeatsRead) -> None:
    """Make commands due that waited for a first heartbeat of their agents."""
    if not state.unsent:
        return
    for beat in reading.beats:
        watch = state.watches.get(beat.agent)
        if watch is not None and state.heartbeats.at_s(watch.row):
            for key in state.unsent.pop(beat.agent, {}):
                state.unacknowledged.restart(key, state.now_s)


def _count_without_heartbeat(state: ResManState) -> int:
    status = state.view.status[: len(state.view)].tolist()
    recent = state.heartbeats.is_recent
    return sum(status[row] != PlacementStatus.DEAD and not recent(row) for row in range(len(status)))


def _apply_judgement(state: ResManState, judged: Judgement, *, declare_dead: bool) -> None:
    names = state.view.names
    for row in judged.recent.tolist():
        record = state.agents[names[row]]
        if record.state is AgentState.DEAD:
            state.request_report(record.agent)  # It counts again when it has reported all it has.
            continue
        state.view.set_status(record.agent, open_status(record))
        _set_agent_state(state, record.agent, AgentState.ALIVE)
    for row in judged.suspect.tolist():
        _suspect(state, names[row])
    for row in judged.dead.tolist():
        if not declare_dead:
            _suspect(state, names[row])
            continue
        state.view.set_status(names[row], PlacementStatus.DEAD)
        state.lost_agents[names[row]] = None
        _set_agent_state(state, names[row], AgentState.DEAD)


def _suspect(state: ResManState, agent: str) -> None:
    if state.agents[agent].state is not AgentState.SUSPECT:
        state.view.set_status(agent, PlacementStatus.SUSPECT)
        _set_agent_state(state, agent, AgentState.SUSPECT)


def _set_agent_state(state: ResManState, agent: str, new: AgentState) -> None:
    record = state.agents[agent]
    if record.state is not new:
        state.cause = agent_cause(agent)
        state.agents.put(agent, replace(record, state=new, since_s=state.now_s))
        state.record(f"agent.{new.value}", agent)


def _apply_trouble(state: ResManState, beat: Heartbeat) -> None:
    """Place nothing on an agent that is alive and reports that it cannot obey."""
    name = beat.agent
    record, watch = state.agents.get(name), state.watches.get(name)
    if record is None or watch is None:
        return
    alive, in_trouble = record.state is AgentState.ALIVE, bool(beat.trouble)
    if watch.in_trouble != (alive and in_trouble):
        state.watch_to_change(name).in_trouble = alive and in_trouble
        if alive:
            state.cause = agent_cause(name)
            state.record("agent.trouble" if in_trouble else "agent.well", name, beat.trouble)
    if alive and in_trouble:
        # The next reading judges it as recent, and opens it if the trouble is over.
        state.view.set_status(name, PlacementStatus.SUSPECT)
