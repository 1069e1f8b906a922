"""Every threshold of AppMaster, with its default; times are seconds."""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.operations.config import RequestConfig

ORDER_SHARE: Final = 5 / 6
"""How long an order is good, of the time after which ResMan gives an agent's containers to others."""


class AppMasterConfig(RequestConfig, frozen=True, kw_only=True):
    """How patient AppMaster is, and how much it remembers."""

    resend_first_s: float = 1.0
    resend_max_s: float = 15.0
    """Back-off of orders that nobody has acknowledged: doubling from first to max."""
    group_poll_s: float = 10.0
    """How often ResMan is asked again about a group that is at rest."""
    group_poll_at_rest_s: float = 60.0
    """The same for a job that has finished, failed or stopped."""
    digest_settle_s: float = 2.0
    """An agent's digest is compared when nothing to or from it has moved for so long."""
    heartbeat_age_max_s: float = 30.0
    """Nothing is sent again to an agent whose last heartbeat is older."""
    order_ttl_s: float = 25.0
    """An order is void so long after the agent's last heartbeat; less than ResMan's ``dead_s``."""
    min_healthy_s: float = 2.0
    """How long an updated pod stays healthy without a break before it counts in a rollout."""
    progress_deadline_s: float = 600.0
    """A rollout in which no pod became good for so long is stalled."""
    stall_restarts: int = 5
    """Restarts of one pod on the new revision, never healthy since, that stall a rollout."""
    stop_grace_s: float = 10.0
    """Beyond ``stop_timeout``, how long a stop may go unreported before the container is ended."""
    first_operator: str = ""
    """``USER:STORED_KEY`` of the operator to begin with when there is no user."""
    revisions_max: int = 10
    events_max: int = 20
    history_max: int = 500
    ended_s: float = 86_400.0
    ended_max: int = 1000
    """Jobs that have finished or failed are kept so long, and so many, before history takes them."""
    failed_on_max: int = 5
    sessions_max: int = 32
    orders_per_message_max: int = 64


def patience(config: AppMasterConfig, *, dead_s: float) -> AppMasterConfig:
    """Return ``config`` for a ResMan that takes an agent for dead after ``dead_s`` of silence.

    No order may outlive that: a host that returns would begin what has been moved meanwhile.
    """
    return msgspec.structs.replace(config, order_ttl_s=ORDER_SHARE * dead_s, heartbeat_age_max_s=dead_s)
