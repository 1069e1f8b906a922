"""Safe mode: ResMan neither places containers nor replaces those of dead agents."""

from __future__ import annotations

from galaxy.errors import Conflict
from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import Reason
from galaxy.model.stored.agent import Mark
from galaxy.resman.logic.state.state import ResManState
from galaxy.resman.logic.state.tables import SAFE_MODE


class SafeMode:
    """Whether ResMan is in safe mode: at the start of a leadership, after a mass loss, or by hand.

    In safe mode nothing is placed, no agent is declared dead and no stray container is
    destroyed. Containers that AppMaster released are still destroyed. ResMan leaves by itself what it
    entered by itself. What an operator entered stays, across leaderships, until an operator leaves it.
    """

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self.automatic: Reason | None = None
        """Why ResMan entered safe mode by itself, or None."""
        self.automatic_since_s = state.now_s
        self.loss_confirmed = False
        """Whether the mass loss has lasted for ``mass_loss_hold_s``, so that its agents count as dead."""
        known = sum(record.state is not AgentState.DEAD for record in state.agents.values())
        if known:
            self._enter("start", f"waiting for {known} known agents to report", known, known)
        self._store()
        self.begin_step()

    @property
    def manual(self) -> Mark | None:
        """Who entered safe mode by hand, when and why, or None."""
        return self.state.manual.get(SAFE_MODE)

    @property
    def reason(self) -> Reason | None:
        """Why ResMan is in safe mode, or None. An operator's reason goes first."""
        mark = self.manual
        if mark is None:
            return self.automatic
        why = f": {mark.reason}" if mark.reason else ""
        return Reason(code="manual", message=f"safe mode: entered by {mark.by}{why}")

    @property
    def since_s(self) -> float:
        """Since when ResMan is in safe mode, Unix seconds."""
        starts = [self.manual.at_s] if self.manual is not None else []
        if self.automatic is not None or not starts:
            starts.append(self.automatic_since_s)
        return min(starts)

    def begin_step(self) -> None:
        """Save the decision, for ``recover``."""
        self._before = self.automatic, self.automatic_since_s, self.loss_confirmed

    def recover(self) -> None:
        """Restore the decision as it was before the last step, which raised."""
        self.automatic, self.automatic_since_s, self.loss_confirmed = self._before
        self._store()

    def update(self, away: int, known: int) -> None:
        """Enter or leave safe mode: ``away`` of ``known`` agents that are not dead send no heartbeats."""
        config, heartbeats = self.state.config, self.state.heartbeats
        mass = away >= config.mass_loss_min and away >= config.mass_loss_share * known
        text = f"{away} of {known} agents vanished at once: is it the network?"
        if self.automatic is None:
            if mass and not self.loss_confirmed:
                self._enter("mass-loss", text, away, known)
            self.loss_confirmed = self.loss_confirmed and mass
        elif self.automatic.code == "mass-loss":
            self.loss_confirmed = self.state.now_s - self.automatic_since_s >= config.mass_loss_hold_s
            if not mass or self.loss_confirmed:
                self._leave()
        elif known - away >= config.safe_start_share * known:
            self._leave()
        elif heartbeats.read_s - heartbeats.gapless_since_s >= config.safe_start_wait_s:
            if mass:
                self._enter("mass-loss", text, away, known)
            else:
                self._leave()

    def enter_by_hand(self, mark: Mark) -> None:
        """Enter safe mode until ``leave_by_hand``; a later call replaces the reason, and not the time."""
        known = self.manual
        self.state.manual.put(
            SAFE_MODE, mark if known is None else Mark(by=mark.by, at_s=known.at_s, reason=mark.reason)
        )
        self._changed()

    def leave_by_hand(self) -> None:
        """Leave safe mode. If hosts vanished together, they count as lost from now on.

        Raises:
            Conflict: ResMan is not in safe mode, or has just begun to lead and knows no agent yet.
        """
        if self.manual is None and self.automatic is None:
            raise Conflict("safe mode is off", hint="galaxy safemode status")
        if self.manual is None and self.automatic is not None and self.automatic.code == "start":
            wait_s = self.state.config.safe_start_wait_s
            raise Conflict(
                "ResMan has just begun to lead, and does not know yet which agents there are",
                details=[self.automatic.message],
                hint=f"it leaves safe mode by itself within {wait_s:g} s, unless many agents are away",
            )
        self.state.manual.drop(SAFE_MODE)
        if self.automatic is not None and self.automatic.code == "mass-loss":
            self.automatic, self.loss_confirmed = None, True
        self._changed()

    def _enter(self, code: str, text: str, away: int, known: int) -> None:
        counts = {"away": away, "known": known}
        self.automatic = Reason(code=code, message=f"safe mode: {text}", counts=counts)
        self.automatic_since_s = self.state.now_s
        self._changed()

    def _leave(self) -> None:
        self.automatic = None
        self._changed()

    def _changed(self) -> None:
        """Store and record what safe mode is now."""
        reason = self.reason
        self._store()
        if reason is None:
            self.state.record("cluster.safe-mode-left", SAFE_MODE)
        else:
            self.state.record("cluster.safe-mode", SAFE_MODE, reason.message)

    def _store(self) -> None:
        """Write the row that queries read."""
        reason = self.reason
        if reason is None:
            self.state.cluster.drop(SAFE_MODE)
        else:
            self.state.cluster.put(SAFE_MODE, reason)
