"""Safe mode: ResMan neither places containers nor replaces those of dead agents."""

from __future__ import annotations

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import Reason
from galaxy.resman.logic.state.state import ResManState
from galaxy.resman.logic.state.tables import SAFE_MODE


class SafeMode:
    """Whether ResMan is in safe mode: at the start of a leadership, and after a mass loss.

    In safe mode nothing is placed, no agent is declared dead and no stray container is
    destroyed. Containers that AppMaster released are still destroyed.
    """

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self.since_s = state.now_s
        self.loss_confirmed = False
        """Whether the mass loss has lasted for ``mass_loss_hold_s``, so that its agents count as dead."""
        known = sum(record.state is not AgentState.DEAD for record in state.agents.values())
        self.reason: Reason | None = None
        state.cluster.drop(SAFE_MODE)
        if known:
            self._enter("start", f"waiting for {known} known agents to report", known, known)
        self.begin_step()

    def begin_step(self) -> None:
        """Save the decision, for ``recover``."""
        self._before = self.reason, self.since_s, self.loss_confirmed

    def recover(self) -> None:
        """Restore the decision as it was before the last step, which raised."""
        self.reason, self.since_s, self.loss_confirmed = self._before
        if self.reason is None:
            self.state.cluster.drop(SAFE_MODE)
        else:
            self.state.cluster.put(SAFE_MODE, self.reason)

    def update(self, away: int, known: int) -> None:
        """Enter or leave safe mode: ``away`` of ``known`` agents that are not dead send no heartbeats."""
        config, heartbeats = self.state.config, self.state.heartbeats
        mass = away >= config.mass_loss_min and away >= config.mass_loss_share * known
        text = f"{away} of {known} agents vanished at once: is it the network?"
        if self.reason is None:
            if mass and not self.loss_confirmed:
                self._enter("mass-loss", text, away, known)
            self.loss_confirmed = self.loss_confirmed and mass
        elif self.reason.code == "mass-loss":
            self.loss_confirmed = self.state.now_s - self.since_s >= config.mass_loss_hold_s
            if not mass or self.loss_confirmed:
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
