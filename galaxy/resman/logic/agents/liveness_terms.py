"""Agrees with AppMaster on the silence after which an agent is dead.

The table ``liveness`` has the longest silence that an unexpired order relies on. ResMan declares
no agent dead sooner, whatever its own option says. A longer silence is stored first, and AppMaster is told
after the commit. A shorter one is told at once, and stored when AppMaster has confirmed it and every order
that it sent before has expired. So several ResMan may be started with different options.
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
    """Return what AppMaster is told."""
    return LivenessTerms(epoch=state.epoch, dead_s=state.config.dead_s)
