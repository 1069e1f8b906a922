"""Every threshold of AppMaster with its default."""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.operations.config import RequestConfig

ORDER_SHARE: Final = 5 / 6
"""Lifetime of an order, as a share of the silence after which ResMan declares an agent dead."""


class AppMasterConfig(RequestConfig, frozen=True, kw_only=True):
    """Times are seconds. Fields that end in ``_max`` bound how much is kept."""

    resend_first_s: float = 1.0
    resend_max_s: float = 15.0
    """Back-off of orders that are not acknowledged: the wait doubles from first to max."""
    group_poll_s: float = 10.0
    """How often ResMan is asked about a group whose last order is acknowledged."""
    group_poll_at_rest_s: float = 60.0
    """The same for a job that has finished, failed or stopped, and for quotas and operators' keys."""
    digest_settle_s: float = 2.0
    """An agent's digest is compared when nothing was received from it or sent to it for so long."""
    heartbeat_age_max_s: float = 30.0
    """Nothing is sent again to an agent whose last heartbeat is older."""
    order_ttl_s: float = 25.0
    """An order expires so long after the agent's last heartbeat; less than ResMan's ``dead_s``."""
    min_healthy_s: float = 2.0
    """How long an updated pod must be healthy without a break before a rollout counts it as good."""
    progress_deadline_s: float = 600.0
    """A rollout in which no pod became good for so long is stalled."""
    stall_restarts: int = 5
    """Restarts of one pod on the new revision, without becoming healthy, that stall a rollout."""
    stop_grace_s: float = 10.0
    """How long beyond ``stop_timeout`` a stop may go unreported before the container is given back."""
    require_users: bool = False
    """Refuse unsigned requests even while there is no user; with the first user that is always so."""
    first_operator: str = ""
    """``USER:STORED_KEY`` of the operator to create when there is no user."""
    revisions_max: int = 10
    """Revisions of one job, besides those that a pod still has."""
    runs_max: int = 10
    """Runs of one batch job."""
    events_max: int = 20
    """Events in the timeline of one job."""
    history_max: int = 500
    """Removed jobs."""
    ended_s: float = 86_400.0
    ended_max: int = 1000
    """How long jobs that finished or failed are kept, and how many of each, before their removal."""
    failed_on_max: int = 5
    sessions_max: int = 32
    """Sessions that one request for logs opens."""
    orders_per_message_max: int = 64


def with_dead_after(config: AppMasterConfig, *, dead_s: float) -> AppMasterConfig:
    """Return ``config`` for a ResMan that declares an agent dead after ``dead_s`` of silence.

    No order may live that long: a host that returns would start what was moved elsewhere meanwhile.
    """
    return msgspec.structs.replace(config, order_ttl_s=ORDER_SHARE * dead_s, heartbeat_age_max_s=dead_s)
