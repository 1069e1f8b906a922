"""Every threshold of AppMaster with its default."""

from __future__ import annotations

from galaxy.operations.config import RequestConfig
from galaxy.units import GIB, MIB


class AppMasterConfig(RequestConfig, frozen=True, kw_only=True):
    """Times are seconds. Fields that end in ``_max`` are upper bounds."""

    resend_first_s: float = 1.0
    resend_s_max: float = 15.0
    """Back-off of orders that are not acknowledged: the wait doubles from first to max."""
    resend_creating_s: float = 5.0
    """Shortest wait for an order whose container is still being created, so that it cannot be carried out."""
    group_poll_s: float = 10.0
    """How often ResMan is asked about a group whose last order is acknowledged."""
    group_poll_at_rest_s: float = 60.0
    """The same for a job that has finished, failed or stopped, and for quotas and operators' keys."""
    digest_settle_s: float = 2.0
    """An agent's digest is compared only when nothing was received from it or sent to it for this long."""
    dead_s: float = 30.0
    """Silence after which ResMan declares an agent dead, until ResMan has said what it is."""
    min_healthy_s: float = 2.0
    """How long an updated pod must be healthy without a break before a rollout counts it as good."""
    progress_deadline_s: float = 600.0
    """A rollout stalls when no pod became good for this long."""
    stall_restarts: int = 5
    """Restarts of one pod on its revision after which it counts as crash-looping: the new revision of a
    rollout fails, and a job without a rollout is degraded."""
    steady_s: float = 30.0
    """A pod that crash-looped counts as steady after it has been healthy for this long without a break."""
    stop_grace_s: float = 10.0
    """How long after ``stop_timeout`` the container is released even if the stop was not reported."""
    require_users: bool = False
    """Refuse unsigned requests even before the first user exists; afterwards they are always refused."""
    first_operator: str = ""
    """``USER:STORED_KEY`` of the operator that is created when there is no user."""
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
    """How long, and how many, finished jobs are kept before they are removed; the same for failed jobs."""
    failed_on_max: int = 5
    """Agents that a pod's record names because it failed on them."""
    sessions_max: int = 32
    """Sessions that one request for logs opens."""
    orders_per_message_max: int = 64
    package_bytes_max: int = 256 * MIB
    """Size of one package that the cluster stores."""
    packages_bytes_max: int = GIB
    packages_max: int = 5000
    """Size of all packages together, and their number, those being sent included."""
    package_keep_s: float = 86_400.0
    """How long a package that no job uses is kept."""
    package_fresh_s: float = 300.0
    """How long a package that a request has named is not dropped for another: its job may be on its way."""
    upload_s: float = 3600.0
    """How long an upload may pause."""
    orders_per_step_max: int = 500
    """Pods that get an order in one step, in turn for all jobs; the rest follows in the next. So the first
    pods of a large job start while the others are still being ordered."""
    resends_per_step_max: int = 200
    """Orders that are sent again in one step; the others wait, because their reports may not be read yet."""
    begin_pods_max: int = 2500
    """A new leadership reconciles all jobs, those of about this many pods in each step."""
