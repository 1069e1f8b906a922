"""Agrees with AppMaster on the silence after which an agent is dead.

The table ``liveness`` has the longest silence that an unexpired order relies on. Invariant: ResMan
declares no agent dead sooner, even if its own option is shorter.

ResMan stores a longer silence first, and sends it to AppMaster after the commit. It sends a shorter one
at once, and stores it when AppMaster has confirmed it and every earlier order has expired. So several
ResMan processes may be started with different options.
"""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.liveness import LivenessTerms
from galaxy.resman.logic.state.state import ResManState

TERMS: Final = "terms"
"""Key of the one row of table ``liveness``."""


def begin_step(state: ResManState) -> None:
    """Store this ResMan's own option once that is safe; declare no agent dead sooner than stored."""
    own_s = state.config.dead_s
    stored = state.liveness.get(TERMS)
    shorter = stored is not None and own_s < stored.dead_s
    is_safe = state.shorten_at_s is not None and state.now_s >= state.shorten_at_s
    if stored is None or own_s > stored.dead_s or (shorter and is_safe):
        stored = LivenessTerms(epoch=state.epoch, dead_s=own_s)
        state.liveness.put(TERMS, stored)
    state.heartbeats.dead_s = stored.dead_s


def on_echo(state: ResManState, terms: LivenessTerms) -> None:
    """Note that AppMaster follows ``terms`` now; its earlier orders expire within the stored silence."""
    stored = state.liveness.get(TERMS)
    if stored is not None and terms == own_terms(state) and state.shorten_at_s is None:
        state.shorten_at_s = state.now_s + stored.dead_s


def own_terms(state: ResManState) -> LivenessTerms:
    """Return the terms that ResMan sends to AppMaster: its own option, under its epoch."""
    return LivenessTerms(epoch=state.epoch, dead_s=state.config.dead_s)
