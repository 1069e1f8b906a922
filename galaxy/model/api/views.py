"""Views for people: the same field names in ``-o json``, in the SDK and in answers.

Times are Unix seconds, CPU is millicores, sizes are bytes.
"""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.agent import AgentInfo, AgentState, AgentUsage
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, OomKills
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.resources import NOTHING, Ceiling, ResourceFields, Resources
from galaxy.model.stored.agent import Drain, Mark
from galaxy.model.stored.user import Authority, Role


class TaskView(Struct, frozen=True, kw_only=True):
    """One program of a pod: ``restarts`` since its last deployment, ``healthy`` None if not known."""

    name: str
    state: str
    restarts: int = 0
    healthy: bool | None = None
    started_s: float | None = None
    last_exit: Exit | None = None
    reason: Reason | None = None
    version: str = ""
    oom_kills: OomKills | None = None


class PodView(Struct, frozen=True, kw_only=True):
    """One pod, and the incarnation of the container that it is in; ``pid`` is that of PID 1 on the host.

    ``restarts`` counts all restarts of its programs, ``revision_restarts`` those on ``revision``.
    ``state`` is ``removed`` once its container is gone because it or its job was removed. ``agent`` of a
    pending pod is where its last container was, with its logs. ``memory_bytes`` is 0 until it is measured.
    """

    pod: str
    index: int
    state: str
    healthy: bool
    revision: int
    container: str
    incarnation: int
    agent: str = ""
    address: str = ""
    ports: dict[str, int] = {}
    pid: int = 0
    restarts: int = 0
    revision_restarts: int = 0
    tasks: tuple[TaskView, ...] = ()
    reason: Reason | None = None
    cpu_milli: int = 0
    memory_bytes: int = 0
    updated_s: float = 0.0
    not_enforced: tuple[str, ...] = ()
    """Limits that its host does not enforce, of cpu, memory, pids and disk."""
    leaving: Reason | None = None
    """Why it is to leave its agent, and what it waits for; None if it may stay."""


class JobSummary(ResourceFields, frozen=True, kw_only=False):  # Its own fields come first in JSON.
    """A line of ``galaxy job list``. Counts are pods; ``state`` is the job's.

    The resources are what its placed containers ask for together.
    """

    job: str
    name: str
    type: str
    state: str
    revision: int
    replica: int
    running: int = 0
    healthy: int = 0
    pending: int = 0
    deploying: int = 0
    failed: int = 0
    finished: int = 0
    user: str = ""
    created_s: float = 0.0
    updated_s: float = 0.0
    reason: Reason | None = None
    in_force: Resources | None = None
    """The sizes that its placed containers have, together, while these are not what they ask for."""

    @property
    def is_over(self) -> bool:
        """Whether the job has ended: none of its programs runs again unless its owner asks for it."""
        return self.state in ("finished", "failed", "removed")


class EndpointView(Struct, frozen=True, kw_only=True):
    """A place where a service answers; ``state`` is ``healthy``, ``unhealthy`` or ``draining``."""

    service: str
    pod: str
    address: str
    port: int
    state: str


class RunView(Struct, frozen=True, kw_only=True):
    """One execution of a batch job. ``state`` is ``active``, ``finished``, ``failed`` or ``removed``."""

    run: int
    state: str
    started_s: float
    ended_s: float | None = None
    exit_code: int | None = None
    attempts: int = 1


class JobView(Struct, frozen=True, kw_only=True):
    """Everything about one job; ``exit_code`` is a finished or failed batch job's."""

    summary: JobSummary
    spec: JobSpec
    pods: tuple[PodView, ...] = ()
    endpoints: tuple[EndpointView, ...] = ()
    events: tuple[TraceEvent, ...] = ()
    exit_code: int | None = None
    settled: bool = False
    """Nothing is in progress: the observed state is the desired state, or every pod has ended."""
    rollout_from: int = 0
    """Revision that a rollout in progress moves away from; 0 when none is."""
    runs: tuple[RunView, ...] = ()
    """Runs of a batch job, oldest first."""


class AgentView(Struct, frozen=True, kw_only=True):
    """One agent: its inventory, and how much of it is assigned and used."""

    agent: str
    state: AgentState
    info: AgentInfo
    assigned: Resources = NOTHING
    """What its containers ask for together."""
    cpu_assigned_milli: int = 0
    """This and the next two repeat parts of ``assigned``, under the names that 0.1.0 gave them."""
    memory_assigned_bytes: int = 0
    disk_assigned_bytes: int = 0
    containers: tuple[str, ...] = ()
    usage: AgentUsage | None = None
    beat_s: float = 0.0
    trouble: str = ""
    """Why the agent runs but cannot carry out orders, as it reports."""
    labels: dict[str, str] = {}
    cordon: Mark | None = None
    """Who decided that nothing new is placed on it, when and why."""
    drain: Drain | None = None


class LeaderView(Struct, frozen=True, kw_only=True):
    """The leader of a role: its Celery node name (``address``), its epoch, and since when it leads."""

    role: str
    address: str = ""
    epoch: int = 0
    since_s: float = 0.0


class ClusterStatusView(Struct, frozen=True, kw_only=True):
    """``galaxy status``: leaders, counts, and totals of what is there, assigned and used."""

    leaders: tuple[LeaderView, ...] = ()
    agents: dict[str, int] = {}
    """By state."""
    jobs: dict[str, int] = {}
    pods: dict[str, int] = {}
    packages: int = 0
    """Stored packages, their size together, and its limit, which is 0 while there are none."""
    packages_bytes: int = 0
    packages_bytes_max: int = 0
    total: Resources = NOTHING
    """The resources of all agents that are not dead."""
    assigned: Resources = NOTHING
    cpu_total_milli: int = 0
    """This and the next five repeat parts of ``total`` and ``assigned``, under the names of 0.1.0."""
    cpu_assigned_milli: int = 0
    memory_total_bytes: int = 0
    memory_assigned_bytes: int = 0
    disk_total_bytes: int = 0
    disk_assigned_bytes: int = 0
    safe_mode: Reason | None = None
    refused: tuple[Reason, ...] = ()
    """The last agents that send heartbeats and are refused, with the reason."""
    left: dict[str, int] = {}
    """By dead agent: containers that were replaced elsewhere, and may still run there until it returns."""
    closed: dict[str, int] = {}
    """Agents on which operators let nothing new be placed: cordoned, draining, drained or offline."""
    version: str = ""


class LogRun(Struct, frozen=True, kw_only=True):
    """One run of a program: the job's revision, and how often the program was restarted before."""

    revision: int
    restarts: int = 0


class LogChunk(Struct, frozen=True, kw_only=True):
    """Text of one pod's log, whole lines where possible. ``end`` closes the session.

    ``at_s`` is when the text arrived, in Unix seconds by the clock of the pod's host; 0.0 means that
    it is not known. A chunk with ``run`` has no text: it says that the output of this run follows.
    """

    pod: str = ""
    task: str = ""
    stream: str = ""
    text: str = ""
    end: bool = False
    error: str = ""
    at_s: float = 0.0
    run: LogRun | None = None
    incarnation: int = 0
    """With ``end`` and where reading begins: the incarnation of the container."""
    next: int = -1
    """Position in the stream after the text; -1 if it is not known. Without text: where reading began."""
    interrupted: bool = False
    """With ``end``: the log goes on, but this session does not, for example because the agent restarts."""
    raw: bytes = b""
    """What was written, where that is not UTF-8; ``text`` has replacement characters for it."""

    @property
    def exact(self) -> str:
        """The text with surrogate escapes (PEP 383) for bytes that are not UTF-8."""
        return self.raw.decode("utf-8", "surrogateescape") if self.raw else self.text


class QuotaView(Struct, frozen=True, kw_only=True):
    """A ceiling, what the user's jobs ask for (``wanted``), and how much of that is placed (``used``).

    All three count what containers ask for, not what they consume.
    """

    user: str
    pool: str
    ceiling: Ceiling
    wanted: Resources
    used: Resources
    by: str = ""
    at_s: float = 0.0
    over: Resources = NOTHING
    """How much of what is wanted is beyond a ceiling that was lowered; nothing is removed for it."""


class SecretView(Struct, frozen=True, kw_only=True):
    """A secret without its value.

    ``jobs`` are those that use it, 100 at most; ``more_jobs`` says whether there are more.
    """

    name: str
    user: str
    at_s: float
    by: str = ""
    serial: int = 1
    jobs: tuple[str, ...] = ()
    more_jobs: bool = False


class PackageView(Struct, frozen=True, kw_only=True):
    """A package that the cluster stores. ``jobs`` are those that use it, as in ``SecretView``."""

    package: str
    source: str
    """What a job file gives as its source."""
    name: str
    user: str
    sha256: str
    size_bytes: int
    stored: bool
    """False while it is being sent."""
    used_s: float = 0.0
    """When a request last named it, in Unix seconds."""
    jobs: tuple[str, ...] = ()
    more_jobs: bool = False


class UserView(Struct, frozen=True, kw_only=True):
    """A user, without the key."""

    user: str
    role: Role
    created_s: float
    by: str = ""
    grants: dict[str, tuple[Authority, ...]] = {}
