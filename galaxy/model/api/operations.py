"""What clients ask of AppMaster and what they are answered. One Celery task name an operation."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from galaxy.model.api.views import (
    AgentView,
    ClusterStatusView,
    EndpointView,
    JobSummary,
    JobView,
    QuotaView,
    SecretView,
    UserView,
)
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.container import Reason
from galaxy.model.stored.quota import Ceiling
from galaxy.model.stored.secret import Secret, SecretName
from galaxy.model.stored.user import ALL_POOLS, AuditRecord, Authority, PoolName, Role, StoredKey, UserName


class Request(Struct, frozen=True, kw_only=True):
    """The envelope; ``body`` is one of the nouns below, by ``op``.

    ``key`` is the idempotency key: the same key again gives the first answer again. ``reply``
    is the client's own short-lived Redis list. ``deadline_s`` is Unix seconds after which
    nobody waits any more. ``proof`` is the signature of ``user`` over all of it, made at ``at_s``
    (Unix seconds) with a ``nonce`` of its own; see ``galaxy.model.api.signing``.
    """

    op: str
    key: str
    reply: str
    deadline_s: float
    user: str = ""
    body: Any = None
    at_s: float = 0.0
    nonce: str = ""
    proof: str = ""


class SubmitJob(Struct, frozen=True, kw_only=True):
    """Run a job. A live job of that name is a conflict; a finished one makes way.

    ``files`` are the contents of the files that environments name, by the name that they have there.
    """

    spec: JobSpec
    files: dict[str, Secret] = {}


class UpdateJob(Struct, frozen=True, kw_only=True):
    """Move a live job to a new spec. ``job`` is a name or an id; ``files`` as in ``SubmitJob``."""

    job: str
    spec: JobSpec
    files: dict[str, Secret] = {}


class JobRef(Struct, frozen=True, kw_only=True):
    """stop, start, remove, show. ``job`` is a name, an id, or a unique prefix of an id."""

    job: str


class RecoverPod(Struct, frozen=True, kw_only=True):
    """Deploy a pod (or, with ``pod`` empty, every failed pod of ``job``) anew."""

    job: str = ""
    pod: str = ""


class ListJobs(Struct, frozen=True, kw_only=True):
    """``all`` includes finished and removed jobs that history still holds."""

    all: bool = False


class ListAgents(Struct, frozen=True, kw_only=True):
    """``agent`` names one; empty lists all."""

    agent: str = ""


class Discover(Struct, frozen=True, kw_only=True):
    """Where ``service`` answers: its healthy endpoints, or with ``all`` the others too."""

    service: str
    all: bool = False


class ClusterStatus(Struct, frozen=True, kw_only=True):
    pass


class ReadLogs(Struct, frozen=True, kw_only=True):
    """``target`` is a job or a pod. Lines come over the stream ``reply`` as ``LogChunk``."""

    target: str
    task: str = ""
    stream: str = ""
    """``stdout``, ``stderr`` or empty for both."""
    tail: int = 200
    follow: bool = False
    previous: bool = False


class ExecIn(Struct, frozen=True, kw_only=True):
    """Run ``argv`` in a pod; bytes go over the session's lists, see ``galaxy.nexus.session``."""

    pod: str
    argv: tuple[str, ...]
    task: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80


class AddUser(Struct, frozen=True, kw_only=True):
    """Make a user; his token stays with whoever asks, ``stored_key`` is made of it.

    ``with_jobs`` says that the jobs there are in this name are his own.
    """

    user: UserName
    stored_key: StoredKey
    role: Role = Role.USER
    with_jobs: bool = False


class UserRef(Struct, frozen=True, kw_only=True):
    """Remove or show a user."""

    user: str


class SetToken(Struct, frozen=True, kw_only=True):
    """Give a user another token; the one he had is worth nothing from then on."""

    user: str
    stored_key: StoredKey


class GrantUser(Struct, frozen=True, kw_only=True):
    """Change what a user may do on a pool: ``add`` to it, ``remove`` from it, ``set`` or ``clear`` it."""

    user: str
    pool: PoolName
    action: Annotated[str, Meta(pattern="^(add|remove|set|clear)$")]
    authorities: tuple[Authority, ...] = ()


class ListUsers(Struct, frozen=True, kw_only=True):
    pass


class UserList(Struct, frozen=True, kw_only=True):
    users: tuple[UserView, ...]


class ListAudit(Struct, frozen=True, kw_only=True):
    """The newest ``limit`` records, or with ``after`` the oldest that have a higher serial."""

    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AuditList(Struct, frozen=True, kw_only=True):
    """Oldest first; ``last`` is the highest serial that was given out."""

    records: tuple[AuditRecord, ...]
    last: int = 0


class SetSecret(Struct, frozen=True, kw_only=True):
    """Keep a secret under a name; ``user`` is whose, empty is one's own."""

    name: SecretName
    value: Secret
    user: str = ""


class SecretRef(Struct, frozen=True, kw_only=True):
    """Remove a secret."""

    name: str
    user: str = ""


class ListSecrets(Struct, frozen=True, kw_only=True):
    """List the secrets of ``user``, or with ``all`` everybody's."""

    user: str = ""
    all: bool = False


class SecretList(Struct, frozen=True, kw_only=True):
    secrets: tuple[SecretView, ...]


class SetQuota(Struct, frozen=True, kw_only=True):
    """Change a ceiling of ``user`` over ``pool``: what ``ceiling`` names is set, ``lift`` has no limit."""

    user: UserName
    pool: PoolName = ALL_POOLS
    ceiling: Ceiling = Ceiling()
    lift: tuple[Annotated[str, Meta(pattern="^(cpu_milli|memory_bytes|disk_bytes|containers)$")], ...] = ()


class ListQuotas(Struct, frozen=True, kw_only=True):
    """List the quotas of ``user``; of all users when it is empty and an operator asks."""

    user: str = ""


class QuotaList(Struct, frozen=True, kw_only=True):
    quotas: tuple[QuotaView, ...]


class SessionOpened(Struct, frozen=True, kw_only=True):
    """Where a session's bytes are: one session a pod; ids are keys under ``galaxy:session:``."""

    sessions: tuple[str, ...]
    pods: tuple[str, ...]


class LogSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: stream logs of one pod into a session."""

    session: str
    pod: str
    read: ReadLogs


class ExecSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: run a command in one pod, bytes over a session."""

    session: str
    pod: str
    exec: ExecIn


class Done(Struct, frozen=True, kw_only=True):
    """An accepted change: the job, its revision, and what is odd about it."""

    job: str
    revision: int = 0
    warnings: tuple[str, ...] = ()


class JobList(Struct, frozen=True, kw_only=True):
    jobs: tuple[JobSummary, ...]


class AgentList(Struct, frozen=True, kw_only=True):
    agents: tuple[AgentView, ...]
    refused: tuple[Reason, ...] = ()
    """Agents that beat and are not heard, the last ones, and why."""


class EndpointList(Struct, frozen=True, kw_only=True):
    endpoints: tuple[EndpointView, ...]


OPERATIONS: Final[dict[str, tuple[type[Struct], type[Struct]]]] = {
    "galaxy.job.submit": (SubmitJob, Done),
    "galaxy.job.update": (UpdateJob, Done),
    "galaxy.job.stop": (JobRef, Done),
    "galaxy.job.start": (JobRef, Done),
    "galaxy.job.remove": (JobRef, Done),
    "galaxy.job.recover": (RecoverPod, Done),
    "galaxy.job.list": (ListJobs, JobList),
    "galaxy.job.show": (JobRef, JobView),
    "galaxy.job.logs": (ReadLogs, SessionOpened),
    "galaxy.pod.exec": (ExecIn, SessionOpened),
    "galaxy.agent.list": (ListAgents, AgentList),
    "galaxy.service.discover": (Discover, EndpointList),
    "galaxy.cluster.status": (ClusterStatus, ClusterStatusView),
    "galaxy.user.add": (AddUser, UserView),
    "galaxy.user.remove": (UserRef, UserView),
    "galaxy.user.token": (SetToken, UserView),
    "galaxy.user.grant": (GrantUser, UserView),
    "galaxy.user.show": (UserRef, UserView),
    "galaxy.user.list": (ListUsers, UserList),
    "galaxy.audit.list": (ListAudit, AuditList),
    "galaxy.secret.set": (SetSecret, SecretView),
    "galaxy.secret.remove": (SecretRef, SecretView),
    "galaxy.secret.list": (ListSecrets, SecretList),
    "galaxy.quota.set": (SetQuota, QuotaView),
    "galaxy.quota.list": (ListQuotas, QuotaList),
}
"""Operation, which is the Celery task's name too: its body and its result."""
