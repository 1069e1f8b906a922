"""Heartbeats: who is alive, who is suspect, who is dead, and when that is not believed."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.base import check_wire
from galaxy.model.messages.agent import AgentState, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.resman.logic.agents.reports import hold_back
from galaxy.resman.logic.groups.transitions import AgentLost
from galaxy.resman.logic.state.state import SAFE_MODE, ResManState
from galaxy.scheduler.cluster_view import Standing
from galaxy.scheduler.liveness import Judgement


class SafeMode:
    """Whether ResMan only watches: at the start of a leadership, and after a mass loss.

    In safe mode nothing is placed, no agent is counted dead and no stray container is
    destroyed; what its owner ordered to end does end.
    """

    def __init__(self, books: ResManState) -> None:
        self.books = books
        self.since_s = books.now_s
        self.believed = False
        known = sum(record.state is not AgentState.DEAD for record in books.agents.values())
        self.reason: Reason | None = None
        books.cluster.drop(SAFE_MODE)
        if known:
            self._enter("start", f"waiting for {known} known agents to report", known, known)
        self.keep()

    def keep(self) -> None:
        """Begin a step: what the last one decided stays."""
        self._before = self.reason, self.since_s, self.believed

    def recover(self) -> None:
        """Be as before the step that began last."""
        self.reason, self.since_s, self.believed = self._before
        if self.reason is None:
            self.books.cluster.drop(SAFE_MODE)
        else:
            self.books.cluster.put(SAFE_MODE, self.reason)

    def judge(self, away: int, known: int) -> None:
        """Enter or leave by how many of the ``known`` agents, dead ones aside, are away."""
        config = self.books.config
        mass = away >= config.mass_loss_min and away >= config.mass_loss_share * known
        text = f"{away} of {known} agents vanished at once: is it the network?"
        if self.reason is None:
            if mass and not self.believed:
                self._enter("mass-loss", text, away, known)
            self.believed = self.believed and mass
        elif self.reason.code == "mass-loss":
            self.believed = self.books.now_s - self.since_s >= config.mass_loss_hold_s
            if not mass or self.believed:
                self._leave()
        elif known - away >= config.safe_start_share * known:
            self._leave()
        elif self.books.pulse.read_s - self.books.pulse.floor_s >= config.safe_start_wait_s:
            if mass:
                self._enter("mass-loss", text, away, known)
            else:
                self._leave()

    def _enter(self, code: str, text: str, away: int, known: int) -> None:
        counts = {"away": away, "known": known}
        self.reason = Reason(code=code, message=f"safe mode: {text}", counts=counts)
        self.since_s = self.books.now_s
        self.books.cluster.put(SAFE_MODE, self.reason)
        self.books.tell("cluster.safe-mode", SAFE_MODE, self.reason.message)

    def _leave(self) -> None:
        self.reason = None
        self.books.cluster.drop(SAFE_MODE)
        self.books.tell("cluster.safe-mode-left", SAFE_MODE)


def hear(books: ResManState, safe: SafeMode, seen: HeartbeatsRead) -> None:
    """Take in all heartbeats as Nexus has them, and judge every agent by them."""
    pulse, watches = books.pulse, books.watches
    pulse.read(seen.now_s)
    settle_s = books.config.settle_s
    rows, times = [], []
    for beat in seen.beats:
        watch = watches.get(beat.agent)
        if watch is None:
            fresh = seen.now_s - beat.at_s <= books.config.suspect_s
            if HOST.fullmatch(beat.agent) and fresh and not _is_foreign(books, beat):
                books.ask(beat.agent)
            continue
        if _is_foreign(books, beat):
            continue  # As good as away: neither its reports nor our orders would be read.
        rows.append(watch.row)
        times.append(beat.at_s)
        if beat.boot != watch.boot:
            # A new leader may have believed a late report of an earlier life: beats know better.
            if beat.boot in watch.old_boots and beat.at_s > watch.turned_s + settle_s:
                books.stir(beat.agent).turn(beat.boot, pulse.read_s)
            books.ask(beat.agent)
        elif (
            beat.containers != watch.digest
            and beat.at_s > watch.settled_s + settle_s
            and not books.containers.count("owing", beat.agent)
        ):
            books.ask(beat.agent)
    pulse.beat(rows, times)
    for beat in seen.beats if books.unsent else ():
        if beat.agent in watches and pulse.at_s(watches[beat.agent].row):
            for key in books.unsent.pop(beat.agent, {}):
                books.owed.restart(key, books.now_s)
    judged = pulse.judge(books.view.standing[: len(books.view)])
    known = int((books.view.standing[: len(books.view)] != Standing.DEAD).sum())
    # An agent away may be old of age, or not seen at all since this leadership began.
    start = safe.reason is not None and safe.reason.code == "start"
    away = _unseen(books) if start else len(judged.suspect) + len(judged.dead)
    safe.judge(away, known)
    _move(books, judged, believe_dead=safe.reason is None)
    for beat in seen.beats:
        _heed(books, beat)


def _is_foreign(books: ResManState, beat: Heartbeat) -> bool:
    """Tell whether an agent speaks a version that we do not read, and say so once a boot."""
    try:
        check_wire(beat.wire)
    except BadMessage as error:
        if books.refuse(beat.agent, beat.boot):
            books.tell("agent.refused", beat.agent, f"{error.message}; {error.hint}")
        return True
    return False


def _heed(books: ResManState, beat: Heartbeat) -> None:
    """Give nothing new to an agent that lives and says why it cannot obey."""
    name = beat.agent
    record, watch = books.agents.get(name), books.watches.get(name)
    if record is None or watch is None:
        return
    alive, troubled = record.state is AgentState.ALIVE, bool(beat.trouble)
    if watch.troubled != (alive and troubled):
        books.stir(name).troubled = alive and troubled
        if alive:
            books.tell("agent.trouble" if troubled else "agent.well", name, beat.trouble)
    if alive and troubled:
        books.view.stand(name, Standing.SUSPECT)  # The next reading opens it, if all is well by then.


def _unseen(books: ResManState) -> int:
    standing = books.view.standing[: len(books.view)]
    return sum(
        1 for row in range(len(standing)) if standing[row] != Standing.DEAD and not books.pulse.fresh(row)
    )


def _move(books: ResManState, judged: Judgement, *, believe_dead: bool) -> None:
    names = books.view.names
    for row in judged.fresh.tolist():
        record = books.agents[names[row]]
        if record.state is AgentState.DEAD:
            books.ask(record.agent)
            continue
        books.view.stand(record.agent, Standing.OPEN)
        _change(books, record.agent, AgentState.ALIVE)
    for row in judged.suspect.tolist():
        _suspect(books, names[row])
    for row in judged.dead.tolist():
        if not believe_dead:
            _suspect(books, names[row])
            continue
        books.view.stand(names[row], Standing.DEAD)
        books.lost[names[row]] = None
        _change(books, names[row], AgentState.DEAD)


def _suspect(books: ResManState, agent: str) -> None:
    if books.agents[agent].state is not AgentState.SUSPECT:
        books.view.stand(agent, Standing.SUSPECT)
        _change(books, agent, AgentState.SUSPECT)


def _change(books: ResManState, agent: str, state: AgentState) -> None:
    record = books.agents[agent]
    if record.state is not state:
        books.agents.put(agent, replace(record, state=state, since_s=books.now_s))
        books.tell(f"agent.{state.value}", agent)


class Replacing:
    """Takes containers off dead agents, so many a second and no more."""

    def __init__(self, books: ResManState) -> None:
        self.books = books
        self.tokens = 0.0
        self.filled_s = float("-inf")
        self.keep()

    def keep(self) -> None:
        """Begin a step: what the last one took stays taken."""
        self._before = self.tokens, self.filled_s

    def recover(self) -> None:
        """Be as before the step that began last."""
        self.tokens, self.filled_s = self._before

    def step(self) -> bool:
        """Take off what may be taken off now; return whether more waits for its turn."""
        books = self.books
        if not books.lost:
            return False
        config = books.config
        rate = max(config.replace_min, config.replace_share * len(books.containers))
        self.tokens = min(rate, self.tokens + rate * (books.now_s - self.filled_s))
        self.filled_s = books.now_s
        for agent in list(books.lost):
            reason = Reason(code="agent-lost", message=f"{agent} stopped reporting")
            for key in books.containers.where("agent", agent):
                row = books.containers[key]
                if row.state is not ContainerState.DESTROYING:
                    if self.tokens < 1:
                        return True
                    self.tokens -= 1
                    books.tell("container.lost", key, reason.message)
                books.happen(key, AgentLost(incarnation=row.incarnation, reason=reason))
                if row.state is not ContainerState.DESTROYING:
                    hold_back(books, key)
            del books.lost[agent]
        return False
