"""Safe mode: ResMan watches, but neither places nor replaces."""

from __future__ import annotations

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import Reason
from galaxy.resman.logic.state.state import ResManState
from galaxy.resman.logic.state.tables import SAFE_MODE


class SafeMode:
    """Whether ResMan is in safe mode: at the start of a leadership, and after a mass loss.

    In safe mode nothing is placed, no agent is declared dead and no stray container is
    destroyed. Containers whose owner ordered their end are destroyed.
    """

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self.since_s = state.now_s
        self.loss_believed = False
        """Whether the present mass loss has lasted so long that its agents count as dead."""
        known = sum(record.state is not AgentState.DEAD for record in state.agents.values())
        self.reason: Reason | None = None
        state.cluster.drop(SAFE_MODE)
        if known:
            self._enter("start", f"waiting for {known} known agents to report", known, known)
        self.begin_step()

    def begin_step(self) -> None:
        """Keep what the last step decided."""
        self._before = self.reason, self.since_s, self.loss_believed

    def recover(self) -> None:
        """Return to what was before the last step, which raised."""
        self.reason, self.since_s, self.loss_believed = self._before
        if self.reason is None:
            self.state.cluster.drop(SAFE_MODE)
        else:
            self.state.cluster.put(SAFE_MODE, self.reason)

    def judge(self, away: int, known: int) -> None:
        """Enter or leave, by how many of the ``known`` agents that are not dead are ``away``."""
        config, heartbeats = self.state.config, self.state.heartbeats
        mass = away >= config.mass_loss_min and away >= config.mass_loss_share * known
        text = f"{away} of {known} agents vanished at once: is it the network?"
        if self.reason is None:
            if mass and not self.loss_believed:
                self._enter("mass-loss", text, away, known)
            self.loss_believed = self.loss_believed and mass
        elif self.reason.code == "mass-loss":
            self.loss_believed = self.state.now_s - self.since_s >= config.mass_loss_hold_s
            if not mass or self.loss_believed:
                self._leave()
        elif known - away >= config.safe_start_share * known:
            self._leave()
        elif heartbeats.read_s - heartbeats.gapless_since_s >= config.safe_start_wait_s:
            if mass:
                self._enter("mass-loss", text, away, known)
            else:
                self._leave()

    def _enter(self, code: str, text: str, away: int, known: int) -> None:
        counts = {"away": away, "known": known}
        self.reason = Reason(code=code, message=f"safe mode: {text}", counts=counts)
        self.since_s = self.state.now_s
        self.state.cluster.put(SAFE_MODE, self.reason)
        self.state.record("cluster.safe-mode", SAFE_MODE, self.reason.message)

    def _leave(self) -> None:
        self.reason = None
        self.state.cluster.drop(SAFE_MODE)
        self.state.record("cluster.safe-mode-left", SAFE_MODE)
