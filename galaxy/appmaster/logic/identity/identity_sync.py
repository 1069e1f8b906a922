"""Sends quotas and users' keys to ResMan until it acknowledges them.

They form one ``IdentityOrder``, which replaces the last one. Every new leadership sends it again.
"""

from __future__ import annotations

from typing import Final

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.identity import IdentityAck, IdentityOrder, UserKey

TIMER: Final = "identity"
"""Kind of the timer that sends the order again."""
_KEY: Final = (TIMER, TIMER)


def begin(state: AppMasterState) -> None:
    """Send the order at the beginning of a leadership."""
    state.timers.set_if_sooner(_KEY, state.now_s)


def changed(state: AppMasterState) -> None:
    """Send the order because quotas, roles or keys have changed."""
    state.identity_serial += 1
    state.group_backoff.reset(TIMER)
    state.timers.cancel(_KEY)
    on_timer(state)


def on_timer(state: AppMasterState) -> None:
    """Send the order in this step, and again with back-off until it is acknowledged."""
    state.identity_unacknowledged = state.outbox.send_identity = True
    state.timers.set_if_sooner(_KEY, state.now_s + state.group_backoff.next_s(TIMER))


def order(state: AppMasterState) -> IdentityOrder | None:
    """Return the order that every message to ResMan carries until it is acknowledged, then None."""
    if not state.identity_unacknowledged:
        return None
    return IdentityOrder(
        epoch=state.epoch,
        serial=state.identity_serial,
        quotas=tuple(state.quotas.values()),
        users=tuple(
            UserKey(user=row.user, stored_key=row.stored_key, role=row.role) for row in state.users.values()
        ),
        open=not state.users and not state.config.require_users,
    )


def on_ack(state: AppMasterState, ack: IdentityAck) -> None:
    """Stop resending; a slow timer still sends it at times, in case ResMan loses its state."""
    if state.identity_unacknowledged and (ack.epoch, ack.serial) >= (state.epoch, state.identity_serial):
        state.identity_unacknowledged = False
        state.group_backoff.reset(TIMER)
        state.timers.cancel(_KEY)
        state.timers.set_if_sooner(_KEY, state.now_s + state.config.group_poll_at_rest_s)
