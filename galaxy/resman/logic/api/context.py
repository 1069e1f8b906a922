"""The state that ResMan's operations read and change."""

from __future__ import annotations

from dataclasses import dataclass

from galaxy.resman.logic.agents.safe_mode import SafeMode
from galaxy.resman.logic.state.state import ResManState


@dataclass(frozen=True, kw_only=True)
class ResManContext:
    """The parts of ResMan's logic in the current step."""

    state: ResManState
    safe_mode: SafeMode
