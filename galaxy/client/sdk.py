"""``Galaxy``: all operations on a cluster that the command line offers, as typed methods."""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from galaxy.client import arguments, contexts, waiting
from galaxy.client.job_loading import Job, prepare, read
from galaxy.client.log_stream import LogStream, NewPods
from galaxy.client.package_staging import PackageFile, read_package, stage
from galaxy.client.package_upload import Progress, upload
from galaxy.client.secret_files import secret_of
from galaxy.client.streams import ExecStream, Executed
from galaxy.client.transport import RequestTransport, retry_while_away
from galaxy.errors import GalaxyError, SpecError, Unreachable
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.audit import AuditList, ListAudit
from galaxy.model.api.body import PAGE_DEFAULT, Body, Page, PagedBody
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import (
    Accepted,
    Discover,
    JobList,
    ListJobs,
    RecoverPod,
    RemoveJob,
    ShowJob,
    StartJob,
    StopJob,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.api.packages import (
    ListPackages,
    PackageUpload,
    RemovePackage,
    StorePackage,
    UploadPackage,
)
from galaxy.model.api.quotas import ListQuotas, SetQuota
from galaxy.model.api.safemode import SafeModeView, ShowSafeMode
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SetSecret
from galaxy.model.api.sessions import ExecIn, ReadLogs, SessionOpened, check_exec
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, RemoveUser, SetToken, ShowUser
from galaxy.model.api.views import (
    AgentView,
    ClusterStatusView,
    EndpointView,
    JobSummary,
    JobView,
    LeaderView,
    PackageView,
    QuotaView,
    SecretView,
    UserView,
)
from galaxy.model.base import Struct
from galaxy.model.jobspec.rules import BAD_NAME, is_secret_name
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.raw_text import to_message
from galaxy.model.resources import Ceiling
from galaxy.model.stored.secret import Secret
from galaxy.model.stored.user import ALL_POOLS, Authority, Role, check_pool_name, check_user_name

R = TypeVar("R", bound=Struct)
P = TypeVar("P", bound=Page)
T = TypeVar("T")


class Galaxy:
    """A connection to one cluster.

    The cluster is named by ``url`` (its Redis), ``dir`` (a folder of ``galaxy up``) or ``context``;
    without any of them by GALAXY_REDIS, GALAXY_DIR, or the current context. Every method returns
    within ``timeout_s`` seconds or raises. If Redis is unavailable for less than that (during a
    restart or failover), the method waits for it. When an answer is lost, the request is
    repeated under the same idempotency key, so a change is made once; ``key`` lets a caller
    choose that key.

        with Galaxy() as galaxy:
            galaxy.run("job.yaml")
            for endpoint in galaxy.discover("hello"):
                print(endpoint.address, endpoint.port)

    Raises:
        NotFound: no cluster is known.
        Refused: the password is wrong.
        Unreachable: Redis does not answer.
    """

    page_limit: int = PAGE_DEFAULT
    """Number of rows in one request for a list. Lists are complete with any value."""
    upload_progress: Progress | None = None
    """Called with a package file and how many of its bytes the cluster has, while it is sent."""

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
                self.cluster.url, user=user or _user_name(), timeout_s=min(timeout_s, 5.0), token=token
            )
        except Unreachable as error:
            raise self._with_origin(error) from error

    def __enter__(self) -> Galaxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Galaxy at {self._transport.address}>"

    def close(self) -> None:
        """Close the connection; iterators over logs end."""
        self._transport.close()

    # Jobs.

    def submit(self, job: Job, *, key: str = "", base: str | os.PathLike[str] = "") -> Accepted:
        """Submit a job and return when it is accepted.

        Paths of packages and secret files are relative to ``base``, or to the job file's folder.

        Raises:
            Conflict: a job of the same name exists.
        """
        spec, files = prepare(job, base=base, store=self.store_package)
        return self._ask(SubmitJob(spec=spec, files=files), key)

    def run(self, job: Job, *, timeout_s: float | None = 300.0, key: str = "") -> JobView:
        """Submit a job and wait until all of its pods run, or it has ended; see ``wait``."""
        return self.wait(self.submit(job, key=key).job, timeout_s=timeout_s)

    def update(
        self, job: Job, *, name: str = "", key: str = "", base: str | os.PathLike[str] = ""
    ) -> Accepted:
        """Move a job to a new spec and return when that is accepted. ``name`` defaults to the spec's.

        Secrets and secret files are read again: when their values changed, an equal spec is a new
        revision as well.
        """
        spec, files = prepare(job, base=base, store=self.store_package)
        return self._ask(UpdateJob(job=name or spec.name, spec=spec, files=files), key)

    def stop(self, job: str, *, key: str = "") -> Accepted:
        """Stop a job's programs; its containers stay."""
        return self._ask(StopJob(job=job), key)

    def start(self, job: str, *, key: str = "") -> Accepted:
        """Start the programs of a stopped job in its containers."""
        return self._ask(StartJob(job=job), key)

    def remove(self, job: str, *, key: str = "") -> Accepted:
        """Remove a job and its containers; it stays in the history for a while."""
        return self._ask(RemoveJob(job=job), key)

    def recover(self, target: str, *, key: str = "") -> Accepted:
        """Deploy a pod (``JOB.INDEX``) again, or every failed pod of a job."""
        _, dot, index = target.rpartition(".")
        one = dot and index.isdecimal()
        asked = RecoverPod(pod=target) if one else RecoverPod(job=target)
        return self._ask(asked, key)

    def jobs(self, *, all: bool = False) -> list[JobSummary]:
        """List jobs by name; ``all`` includes ended jobs, as far as history goes."""
        return list(self.job_list(all=all).jobs)

    def job_list(self, *, all: bool = False) -> JobList:
        """List jobs as ``jobs`` does, with the number of jobs that you may not see."""
        first = self._ask(ListJobs(all=all, limit=self.page_limit))
        if not first.next:
            return first
        rest = self._all(ListJobs(all=all, after=first.next), lambda page: page.jobs)
        return JobList(jobs=(*first.jobs, *rest), hidden=first.hidden)

    def job(self, job: str) -> JobView:
        """Return everything about one job, named by its name, id, or the start of its id."""
        return self._ask(ShowJob(job=job))

    def submitted_spec(self, job: str) -> JobSpec:
        """Return the spec of one of your jobs as it was submitted, with the credentials in its URLs.

        Raises:
            Refused: the job is another user's.
        """
        return self._ask(ShowJob(job=job, submitted=True)).spec

    def wait(
        self,
        job: str,
        *,
        timeout_s: float | None = 300.0,
        progress: Callable[[JobView], None] | None = None,
        until: Callable[[JobView], bool] | None = None,
    ) -> JobView:
        """Wait until a job is settled, has ended or is degraded, or ``until`` is true; return its view.

        It also returns after ``timeout_s`` (None means no limit), so check ``settled``. ``progress``
        is called with every view but the first. While the cluster does not answer, it keeps waiting.
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
        """Return ``job`` as a checked spec, with its package files stored in the cluster.

        Raises:
            SpecError: the job is invalid; the error lists every problem.
        """
        spec, base = read(job)
        return self.stage(spec, base=base)

    def stage(self, spec: JobSpec, *, base: Path) -> JobSpec:
        """Return ``spec`` with its package files, relative to ``base``, stored in the cluster.

        Raises:
            SpecError: a package does not exist.
            Refused: the cluster has no room for one.
        """
        return stage(spec, base=base, store=self.store_package)

    # Packages that the cluster stores. Submitting and updating jobs store theirs by themselves.

    def store_package(self, package: str | os.PathLike[str] | PackageFile) -> PackageView:
        """Store a package file in the cluster and return its view, whose ``source`` job files may name.

        ``package`` is a path, or a file that was read before. What the cluster has is not sent again.

        Raises:
            SpecError: it cannot be read.
            Refused: it is too large, or the cluster has no room for it.
        """
        file = package if isinstance(package, PackageFile) else read_package(Path(package))

        def begin() -> PackageUpload:
            return self._ask(UploadPackage(sha256=file.sha256, size_bytes=file.size_bytes, name=file.name))

        return upload(
            file,
            packages=self._transport.nexus.packages,
            begin=begin,
            finish=lambda package: self._ask(StorePackage(package=package)),
            timeout_s=self.timeout_s,
            progress=self.upload_progress,
        )

    def packages(self, *, user: str = "", all: bool = False) -> list[PackageView]:
        """List your own packages; operators may name a ``user``, or request ``all``."""
        return self._all(ListPackages(user=user, all=all), lambda page: page.packages)

    def remove_package(self, package: str, *, key: str = "") -> PackageView:
        """Remove a package, named by its id or source.

        Raises:
            Conflict: a job uses it.
        """
        return self._ask(RemovePackage(package=package), key)

    # Output of programs, and commands in their containers.

    def logs(
        self,
        target: str,
        *,
        task: str = "",
        stream: str = "",
        tail: int = 200,
        follow: bool = False,
        previous: bool = False,
        latest: bool = False,
        since_s: float = 0.0,
    ) -> LogStream:
        """Return an iterator over the logs of a job or a pod, as ``LogChunk``, in the order of time.

        ``tail`` is the number of last lines of each pod; -1 means all that are kept. ``since_s`` leaves
        out what was written before that time, in Unix seconds. ``latest`` reads the latest run of each
        program alone, and ``previous`` the run before it.

        Following waits for the first pod, continues with pods that scaling adds and with containers
        that replace others, and ends with the job. Close the iterator to stop earlier.
        """
        asked = ReadLogs(
            target=target,
            task=task,
            stream=stream,
            tail=tail,
            follow=follow,
            previous=previous,
            latest=latest,
            since_s=since_s,
        )

        def open_logs(pod: str) -> SessionOpened:
            return self._ask(ReadLogs(target=pod, task=task, stream=stream, tail=-1, follow=True))

        new_pods = NewPods(target, self.job, open_logs) if follow else None
        return LogStream(self._ask(asked), self._transport.session, new_pods=new_pods)

    def open_exec(
        self,
        pod: str,
        argv: arguments.Command,
        *,
        task: str = "",
        tty: bool = False,
        rows: int = 24,
        columns: int = 80,
        detach: bool = False,
    ) -> ExecStream:
        """Start ``argv`` in a pod and return its streams; the name of a job means its first running pod.

        ``argv`` is a list of texts. One text is split as a shell would split it, and no shell runs:
        for pipes and patterns use ``["sh", "-c", "ls *.log | wc -l"]``.

        The command ends with this process, at the latest two seconds after it. With ``detach`` it runs
        on, without input and output, and its stream ends with status 0 as soon as it was started.
        """
        asked = ExecIn(
            pod=pod,
            argv=tuple(map(to_message, arguments.command(argv))),
            task=task,
            tty=tty,
            rows=rows,
            columns=columns,
            detach=detach,
        )
        check_exec(asked.argv)
        opened = self._ask(asked)
        return ExecStream(opened.pods[0], self._transport.session(opened.sessions[0]))

    def exec(
        self,
        pod: str,
        argv: arguments.Command,
        *,
        task: str = "",
        input: bytes = b"",
        timeout_s: float = 60.0,
    ) -> Executed:
        """Run ``argv`` in a pod and return its exit status and output (at most 8 MiB).

        ``argv`` is as in ``open_exec``: a list of texts, or one text that is split as a shell would.

        Raises:
            TimedOut: it did not end within ``timeout_s``; the command is ended.
            Conflict: the pod does not run.
            NotFound: there is no such pod or job.
        """
        with self.open_exec(pod, argv, task=task) as stream:
            return stream.communicate(input, timeout_s)

    # Services, agents, the cluster.

    def discover(self, service: str, *, all: bool = False) -> list[EndpointView]:
        """Return the healthy endpoints of a service, or ``all`` of them with their states."""
        return self._all(Discover(service=service, all=all), lambda page: page.endpoints)

    def agents(self) -> list[AgentView]:
        """List the agents, by name."""
        return list(self.agent_list().agents)

    def agent_list(self) -> AgentList:
        """List the agents by name, and the reasons why other hosts that send heartbeats are refused."""
        first = self._ask(ListAgents(limit=self.page_limit))
        if not first.next:
            return first
        rest = self._all(ListAgents(after=first.next), lambda page: page.agents)
        return AgentList(agents=(*first.agents, *rest), refused=first.refused)

    def agent(self, name: str) -> AgentView:
        """Return one agent."""
        return self._ask(ListAgents(agent=name)).agents[0]

    def status(self) -> ClusterStatusView:
        """Return leaders, counts and totals of the cluster."""
        return self._ask(ClusterStatus())

    def safe_mode(self) -> SafeModeView:
        """Return whether ResMan is in safe mode, since when and why; for operators.

        ResMan answers, so this works while no AppMaster runs.
        """
        return self._ask(ShowSafeMode())

    def leaders(self) -> list[LeaderView]:
        """Return the leaders from Redis, without asking AppMaster."""
        nexus = self._transport.nexus
        leaders = [
            retry_while_away(partial(nexus.leader, role), self.timeout_s) for role in (RESMAN, APPMASTER)
        ]
        return [leader for leader in leaders if leader is not None]

    def heartbeats(self) -> HeartbeatsRead:
        """Return the agents' last heartbeats from Redis, without asking AppMaster."""
        return retry_while_away(self._transport.nexus.heartbeats, self.timeout_s)

    # Users, for operators.

    def add_user(self, user: str, *, role: str = "user", with_jobs: bool = False, key: str = "") -> str:
        """Add a user and return the token, ``USER:SECRET``, which cannot be read again.

        ``with_jobs`` makes the user the owner of jobs that were run under this name before.

        Raises:
            Conflict: the user exists, or jobs under this name hold containers and ``with_jobs`` is not set.
        """
        check_user_name(user)
        secret = secrets.token_urlsafe(32)
        stored = stored_key(secret)
        asked = AddUser(
            user=user, stored_key=stored, role=arguments.choice(role, Role, "role"), with_jobs=with_jobs
        )
        return f"{self._ask(asked, key).user}:{secret}"

    def new_token(self, user: str, *, key: str = "") -> str:
        """Replace a user's token and return the new one; the old one becomes invalid."""
        secret = secrets.token_urlsafe(32)
        asked = SetToken(user=user, stored_key=stored_key(secret))
        return f"{self._ask(asked, key).user}:{secret}"

    def remove_user(self, user: str, *, key: str = "") -> UserView:
        """Remove a user.

        Raises:
            Conflict: a job of the user holds or requests containers.
        """
        return self._ask(RemoveUser(user=user), key)

    def grant(
        self, user: str, pool: str, action: str, authorities: Sequence[str] = (), *, key: str = ""
    ) -> UserView:
        """Change what a user may do on a pool; ``action`` is ``add``, ``remove``, ``set`` or ``clear``.

        The pool ``*`` means every pool.
        """
        check_pool_name(pool)
        given = tuple(
            arguments.choice(name, Authority, "authorities")
            for name in arguments.names(authorities, "authorities")
        )
        asked = GrantUser(user=user, pool=pool, action=action, authorities=given)
        return self._ask(asked, key)

    def user(self, user: str) -> UserView:
        """Return one user and the user's grants."""
        return self._ask(ShowUser(user=user))

    def users(self) -> list[UserView]:
        """List users, by name."""
        return self._all(ListUsers(), lambda page: page.users)

    def audit(
        self,
        *,
        after: int = 0,
        before: int = 0,
        limit: int = 100,
        user: str = "",
        operation: str = "",
        target: str = "",
        since_s: float = 0.0,
    ) -> AuditList:
        """Return the newest records of the audit trail that match, or those next to a serial.

        ``after`` a serial they are the oldest ones above it, ``before`` a serial the newest ones below.
        ``operation`` is like ``job.submit``, or ``job`` for all on jobs; ``target`` is a name or an id;
        ``since_s`` is Unix seconds.
        """
        return self._ask(
            ListAudit(
                after=after,
                before=before,
                limit=limit,
                user=user,
                operation=operation,
                target=target,
                since_s=since_s,
            )
        )

    # Secrets and quotas.

    def set_secret(
        self, name: str, value: str | bytes | Secret, *, user: str = "", key: str = ""
    ) -> SecretView:
        """Set the secret ``name`` to ``value``; jobs get it when they are updated.

        Operators may name the owner as ``user``. The answer lists the jobs that use the secret, and
        never contains the value.
        """
        if not is_secret_name(name):
            raise SpecError(f'"{name}" {BAD_NAME}')
        if not isinstance(value, Secret):
            value = secret_of(value.encode() if isinstance(value, str) else value, f'secret "{name}"')
        return self._ask(SetSecret(name=name, value=value, user=user), key)

    def secrets(self, *, user: str = "", all: bool = False) -> list[SecretView]:
        """List your own secrets, without values; operators may name a ``user``, or request ``all``."""
        return self._all(ListSecrets(user=user, all=all), lambda page: page.secrets)

    def remove_secret(self, name: str, *, user: str = "", key: str = "") -> SecretView:
        """Remove a secret.

        Raises:
            Conflict: a job uses it.
        """
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
        """Set the fields of ``ceiling`` that are not None, and remove the ceilings that ``lift`` names."""
        check_user_name(user)
        check_pool_name(pool)
        asked = SetQuota(user=user, pool=pool, ceiling=ceiling, lift=arguments.names(lift, "lift"))
        return self._ask(asked, key)

    def quotas(self, user: str = "") -> list[QuotaView]:
        """List the quotas of ``user``; without it all of them for operators, your own for other users."""
        return self._all(ListQuotas(user=user), lambda page: page.quotas)

    def _all(self, body: PagedBody[P], rows: Callable[[P], Iterable[T]]) -> list[T]:
        """Return the rows of every page of a list."""
        found: list[T] = []
        after = body.after
        while True:
            page = self._ask(msgspec.structs.replace(body, limit=self.page_limit, after=after))
            found += rows(page)
            if not page.next:
                return found
            after = page.next

    def _ask(self, body: Body[R], key: str = "") -> R:
        """Return the leader's answer to ``body``; without a ``key`` it gets a random one."""
        return self._transport.ask(body, key=key or secrets.token_hex(16), timeout_s=self.timeout_s)

    def _with_origin(self, error: Unreachable) -> GalaxyError:
        """Explain an unreachable cluster: where its address came from and how to restart it."""
        hint = contexts.start_command(self.cluster.dir) if self.cluster.dir else error.hint
        details = [*error.details, f"the cluster is named by {self.cluster.named_by}"]
        return Unreachable(error.message, details=details, hint=hint)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
