"""``Galaxy``: everything that the command line can do with a cluster, as typed methods."""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from galaxy.client import contexts, waiting
from galaxy.client.job_loading import Job, prepare, read, remove_unneeded_packages
from galaxy.client.package_staging import sources_of, stage
from galaxy.client.secret_files import secret_of
from galaxy.client.streams import ExecStream, Executed, LogStream
from galaxy.client.transport import RequestTransport, insist
from galaxy.errors import GalaxyError, SpecError, Unreachable, UsageError
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.api.body import Body
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import (
    Discover,
    Done,
    ListJobs,
    RecoverPod,
    RemoveJob,
    ShowJob,
    StartJob,
    StopJob,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.api.quotas import ListQuotas, SetQuota
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SetSecret
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, RemoveUser, SetToken, ShowUser
from galaxy.model.api.views import (
    AgentView,
    ClusterStatusView,
    EndpointView,
    JobSummary,
    JobView,
    LeaderView,
    QuotaView,
    SecretView,
    UserView,
)
from galaxy.model.base import Struct
from galaxy.model.jobspec.rules import BAD_NAME, is_secret_name
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.stored.quota import Ceiling
from galaxy.model.stored.secret import Secret
from galaxy.model.stored.user import ALL_POOLS, Authority, Role, check_pool_name, check_user_name

R = TypeVar("R", bound=Struct)


class Galaxy:
    """One cluster, and what can be asked of it.

    The cluster is the one of ``url`` (its Redis), ``dir`` (a folder of ``galaxy up``) or
    ``context``; without any of them GALAXY_REDIS, GALAXY_DIR, or the one used last. Every
    method answers within ``timeout_s`` seconds or raises, and a Redis that is away for less (it
    is restarted, or another one takes over) is waited for; changes are repeated under one
    idempotency key when an answer is lost, and ``key`` lets a caller choose that key.

        with Galaxy() as galaxy:
            galaxy.run("job.yaml")
            for endpoint in galaxy.discover("hello"):
                print(endpoint.address, endpoint.port)

    Raises:
        NotFound: no cluster is known. Refused: wrong password. Unreachable: nobody answers.
    """

    def __init__(
        self,
        url: str = "",
        *,
        dir: str | os.PathLike[str] = "",
        context: str = "",
        timeout_s: float = 5.0,
        user: str = "",
        token: str = "",
    ) -> None:
        self.cluster = contexts.find_cluster(url=url, dir=os.fspath(dir), context=context)
        token = token or self.cluster.token
        self.timeout_s = timeout_s
        try:
            self._transport = RequestTransport(
                self.cluster.url, user=user or _user(), timeout_s=min(timeout_s, 5.0), token=token
            )
        except Unreachable as error:
            raise self._dead(error) from error

    def __enter__(self) -> Galaxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; iterators of logs end."""
        self._transport.close()

    # Jobs.

    def submit(self, job: Job, *, key: str = "", base: str | os.PathLike[str] = "") -> Done:
        """Run a job and return when it is accepted; a live job of the same name is a ``Conflict``.

        Paths of packages and of files with secrets start at the job file's folder, or at ``base``.
        """
        spec, files = prepare(job, base=base, cluster_dir=self.cluster.dir)
        done = self._ask(SubmitJob(spec=spec, files=files), key)
        remove_unneeded_packages(self.cluster.dir, self._sources)
        return done

    def run(self, job: Job, *, timeout_s: float | None = 300.0, key: str = "") -> JobView:
        """Run a job and wait until all of it runs, or it has ended; see ``wait``."""
        return self.wait(self.submit(job, key=key).job, timeout_s=timeout_s)

    def update(self, job: Job, *, name: str = "", key: str = "", base: str | os.PathLike[str] = "") -> Done:
        """Move a live job to a new spec and return when that is accepted; ``name`` is the spec's.

        Secrets and files are read anew: a spec whose secrets have other values is a new revision.
        """
        spec, files = prepare(job, base=base, cluster_dir=self.cluster.dir)
        asked = UpdateJob(job=name or spec.name, spec=spec, files=files)
        done = self._ask(asked, key)
        remove_unneeded_packages(self.cluster.dir, self._sources)
        return done

    def stop(self, job: str, *, key: str = "") -> Done:
        """Stop a job's programs; its containers stay."""
        return self._ask(StopJob(job=job), key)

    def start(self, job: str, *, key: str = "") -> Done:
        """Start the programs of a stopped job in its containers."""
        return self._ask(StartJob(job=job), key)

    def remove(self, job: str, *, key: str = "") -> Done:
        """Remove a job and its containers; history remembers it for a while."""
        return self._ask(RemoveJob(job=job), key)

    def recover(self, target: str, *, key: str = "") -> Done:
        """Deploy a pod (``JOB.INDEX``) anew, or every failed pod of a job."""
        _, dot, index = target.rpartition(".")
        one = dot and index.isdecimal()
        asked = RecoverPod(pod=target) if one else RecoverPod(job=target)
        return self._ask(asked, key)

    def jobs(self, *, all: bool = False) -> list[JobSummary]:
        """List jobs by name; ``all`` includes those that are over, as far as history goes."""
        return list(self._ask(ListJobs(all=all)).jobs)

    def job(self, job: str) -> JobView:
        """Return everything about one job: by name, id, or the beginning of an id."""
        return self._ask(ShowJob(job=job))

    def wait(
        self,
        job: str,
        *,
        timeout_s: float | None = 300.0,
        progress: Callable[[JobView], None] | None = None,
        until: Callable[[JobView], bool] | None = None,
    ) -> JobView:
        """Wait until a job is settled, is over or degraded, or ``until`` says so; return its last view.

        It returns after ``timeout_s`` as well (None: never), so look at ``settled``. ``progress``
        is called with every view. Answers that are missing meanwhile are waited for.
        """
        return waiting.wait(
            self._transport,
            self.job,
            job,
            timeout_s=timeout_s,
            progress=progress,
            until=until or waiting.at_rest,
        )

    def spec(self, job: Job) -> JobSpec:
        """Return ``job`` as a checked spec, package files staged for the cluster.

        Raises:
            SpecError: with every problem of it.
        """
        spec, base = read(job)
        return self.stage(spec, base=base)

    def stage(self, spec: JobSpec, *, base: Path) -> JobSpec:
        """Return ``spec`` with package files, relative to ``base``, brought to the cluster.

        Raises:
            SpecError: a package is not there. GalaxyError: the cluster is on another host.
        """
        return stage(spec, base=base, cluster_dir=self.cluster.dir)

    # What programs write, and commands in their containers.

    def logs(
        self,
        target: str,
        *,
        task: str = "",
        stream: str = "",
        tail: int = 200,
        follow: bool = False,
        previous: bool = False,
    ) -> LogStream:
        """Return an iterator over the logs of a job or a pod, as ``LogChunk``.

        ``tail`` -1 is everything that is kept; ``previous`` is the run before the present one.
        Close it to stop following.
        """
        asked = ReadLogs(target=target, task=task, stream=stream, tail=tail, follow=follow, previous=previous)
        opened = self._ask(asked)
        return LogStream(opened, self._transport.session, follow=follow)

    def open_exec(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        task: str = "",
        tty: bool = False,
        rows: int = 24,
        columns: int = 80,
    ) -> ExecStream:
        """Start ``argv`` in a pod (a job stands for its first running one) and return its streams."""
        if not argv:
            raise UsageError("no command to run")
        asked = ExecIn(pod=pod, argv=tuple(argv), task=task, tty=tty, rows=rows, columns=columns)
        opened = self._ask(asked)
        return ExecStream(opened.pods[0], self._transport.session(opened.sessions[0]))

    def exec(
        self, pod: str, argv: Sequence[str], *, task: str = "", input: bytes = b"", timeout_s: float = 60.0
    ) -> Executed:
        """Run ``argv`` in a pod to its end and return exit status and output (8 MiB at most)."""
        with self.open_exec(pod, argv, task=task) as stream:
            return stream.communicate(input, timeout_s)

    # Services, agents, the cluster.

    def discover(self, service: str, *, all: bool = False) -> list[EndpointView]:
        """Return where a service answers: healthy endpoints, or ``all`` with their states."""
        asked = Discover(service=service, all=all)
        return list(self._ask(asked).endpoints)

    def agents(self) -> list[AgentView]:
        """List the agents, by name."""
        return list(self.agent_list().agents)

    def agent_list(self) -> AgentList:
        """List the agents, by name, and those that beat and are refused, with the reason."""
        return self._ask(ListAgents())

    def agent(self, name: str) -> AgentView:
        """Return one agent."""
        return self._ask(ListAgents(agent=name)).agents[0]

    def status(self) -> ClusterStatusView:
        """Return leaders, counts and totals of the cluster."""
        return self._ask(ClusterStatus())

    def leaders(self) -> list[LeaderView]:
        """Return who leads, from Nexus itself; works when nobody does."""
        nexus = self._transport.nexus
        found = [insist(partial(nexus.leader, role), self.timeout_s) for role in (RESMAN, APPMASTER)]
        return [leader for leader in found if leader is not None]

    def beats(self) -> HeartbeatsRead:
        """Return the agents' last heartbeats, from Nexus itself."""
        return insist(self._transport.nexus.beats, self.timeout_s)

    # Users, for operators.

    def add_user(self, user: str, *, role: str = "user", with_jobs: bool = False, key: str = "") -> str:
        """Make a user and return his token, ``USER:SECRET``; nobody can tell it again.

        ``with_jobs`` makes what was run in this name, before there was such a user, his own.

        Raises:
            Conflict: there is such a user, or jobs in this name hold containers and are not said to be his.
        """
        check_user_name(user)
        secret = secrets.token_urlsafe(32)
        stored = stored_key(secret)
        asked = AddUser(user=user, stored_key=stored, role=Role(role), with_jobs=with_jobs)
        return f"{self._ask(asked, key).user}:{secret}"

    def new_token(self, user: str, *, key: str = "") -> str:
        """Give a user another token and return it; the one he had is worth nothing from then on."""
        secret = secrets.token_urlsafe(32)
        asked = SetToken(user=user, stored_key=stored_key(secret))
        return f"{self._ask(asked, key).user}:{secret}"

    def remove_user(self, user: str, *, key: str = "") -> UserView:
        """Remove a user; ``Conflict`` while a job of his holds or wants containers."""
        return self._ask(RemoveUser(user=user), key)

    def grant(
        self, user: str, pool: str, action: str, authorities: Sequence[str] = (), *, key: str = ""
    ) -> UserView:
        """Change what a user may do on a pool (``*`` is all): ``add``, ``remove``, ``set`` or ``clear``."""
        check_pool_name(pool)
        given = tuple(Authority(authority) for authority in authorities)
        asked = GrantUser(user=user, pool=pool, action=action, authorities=given)
        return self._ask(asked, key)

    def user(self, user: str) -> UserView:
        """Return one user and his grants."""
        return self._ask(ShowUser(user=user))

    def users(self) -> list[UserView]:
        """List users, by name."""
        return list(self._ask(ListUsers()).users)

    def audit(self, *, after: int = 0, limit: int = 100) -> AuditList:
        """Return the newest records of who did what, or the oldest with a serial above ``after``."""
        return self._ask(ListAudit(after=after, limit=limit))

    # Secrets and quotas.

    def set_secret(
        self, name: str, value: str | bytes | Secret, *, user: str = "", key: str = ""
    ) -> SecretView:
        """Keep ``value`` under ``name``, or in place of what was there; jobs get it when updated.

        ``user`` is whose it is, for operators. Who uses it is in the answer; the value never is.
        """
        if not is_secret_name(name):
            raise SpecError(f'"{name}" {BAD_NAME}')
        if not isinstance(value, Secret):
            value = secret_of(value.encode() if isinstance(value, str) else value, f'secret "{name}"')
        return self._ask(SetSecret(name=name, value=value, user=user), key)

    def secrets(self, *, user: str = "", all: bool = False) -> list[SecretView]:
        """List one's own secrets, without values; operators name a ``user``, or ask for ``all``."""
        asked = ListSecrets(user=user, all=all)
        return list(self._ask(asked).secrets)

    def remove_secret(self, name: str, *, user: str = "", key: str = "") -> SecretView:
        """Forget a secret; while a job uses it, that is a ``Conflict``."""
        return self._ask(RemoveSecret(name=name, user=user), key)

    def set_quota(
        self,
        user: str,
        ceiling: Ceiling,
        *,
        pool: str = ALL_POOLS,
        lift: Sequence[str] = (),
        key: str = "",
    ) -> QuotaView:
        """Set the fields of ``ceiling`` that are not None, and lift those that ``lift`` names."""
        check_user_name(user)
        check_pool_name(pool)
        asked = SetQuota(user=user, pool=pool, ceiling=ceiling, lift=tuple(lift))
        return self._ask(asked, key)

    def quotas(self, user: str = "") -> list[QuotaView]:
        """List the quotas of ``user``; without one all of them for operators, one's own for others."""
        return list(self._ask(ListQuotas(user=user)).quotas)

    def _ask(self, body: Body[R], key: str = "") -> R:
        return self._transport.ask(body, key=key or secrets.token_hex(16), timeout_s=self.timeout_s)

    def _sources(self) -> list[str]:
        """Return where the packages of all jobs come from."""
        return [source for job in self.jobs() for source in sources_of(self.job(job.job).spec)]

    def _dead(self, error: Unreachable) -> GalaxyError:
        """Say of a cluster that does not answer who named it, and how to have it back."""
        hint = f"galaxy up --dir {self.cluster.dir}" if self.cluster.dir else error.hint
        details = [*error.details, f"the cluster is named by {self.cluster.named_by}"]
        return Unreachable(error.message, details=details, hint=hint)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
