"""The work of the supervisor process of ``galaxy up``: start a cluster, keep it running, stop it."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from galaxy import __version__
from galaxy.cli.local import server as servers
from galaxy.cli.local.child import Child
from galaxy.cli.local.layout import (
    PLAN_FORMAT,
    ClusterLock,
    ClusterPlan,
    Layout,
    LocalAgent,
    check_format,
    read_plan,
    write_plan,
)
from galaxy.cli.local.port_claims import PortClaim, claim_ports, free_port
from galaxy.cli.local.shutdown import PARTS_GRACE_S, SERVER_GRACE_S, stop_agents, stop_stale_parts
from galaxy.cli.local.supervisor import PartChanged, Stopped, Supervisor, not_ready_in_time
from galaxy.client.cluster_file import ClusterFile, ProcessRef, remove_cluster, write_cluster
from galaxy.client.contexts import without_password
from galaxy.client.login_urls import login_url
from galaxy.container.host_support import probe
from galaxy.container.kernel.uid_ranges import UIDS_DEFAULT
from galaxy.errors import HostError, Unreachable, UsageError
from galaxy.ids import HOST
from galaxy.model.api.signing import split_token, stored_key
from galaxy.model.base import Struct
from galaxy.model.messages.names import APPMASTER
from galaxy.nexus import acl
from galaxy.nexus.nexus import Nexus

TIMEOUT_S: Final = 60.0
TIMEOUT_S_MIN: Final = 1.0
TIMEOUT_S_MAX: Final = 3600.0
REDIS_PORT: Final = 6390
WEB_PORT: Final = 5555
LEADERS: Final = ("resman", "appmaster")


class UpOptions(Struct, frozen=True, kw_only=True):
    """The options of ``galaxy up``; an empty text or 0 leaves the choice to Galaxy."""

    dir: str
    redis: str = ""
    redis_from: str = ""
    """The environment variable that ``redis`` comes from; empty for an option or the saved plan."""
    server: str = ""
    listen: str = ""
    agents: int = 1
    web: bool = True
    web_port: int = 0
    redis_port: int = 0
    uids: tuple[int, int] = UIDS_DEFAULT
    run_user: str = ""
    timeout_s: float = TIMEOUT_S
    """Limit for the server to answer, and then again for all parts to be ready."""
    detach: bool = False


def check_server_options(options: UpOptions) -> None:
    """Refuse options about the server that Galaxy starts together with the URL of another one.

    Raises:
        UsageError: it names the option and where the URL comes from.
    """
    if not options.redis:
        return
    where = options.redis_from or "--redis"
    for option, value in (("--server", options.server), ("--redis-port", options.redis_port)):
        if value:
            raise UsageError(
                f"{option} {value} is for a server that `galaxy up` starts, and {where} names your own",
                hint=f"leave out {option}, or {'unset ' if options.redis_from else ''}{where}",
            )


def with_saved_server(options: UpOptions, plan: ClusterPlan | None) -> UpOptions:
    """Return ``options`` with the Redis URL that the folder was last used with, unless they name a server."""
    if plan is None or not plan.redis_url or options.redis or options.server:
        return options
    return msgspec.structs.replace(options, redis=plan.redis_url)


class ClusterUp(Struct, frozen=True, kw_only=True):
    """All parts of the cluster are ready."""

    cluster: ClusterFile
    agents: tuple[str, ...]
    server: str
    took_s: float


class LocalCluster:
    """A cluster in one folder, run by this process until a stop is requested."""

    def __init__(
        self,
        options: UpOptions,
        report: Callable[[PartChanged], None],
        lifeline: int,
        on_stop: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Stop what an earlier supervisor left running in the folder, and plan the cluster.

        ``on_stop`` is called with who asked for the stop, before anything is stopped.

        Raises:
            GalaxyError: another release created the folder.
            HostError: no usable server on this host, or no free ports.
        """
        self.layout = Layout(Path(options.dir))
        self.options = options = with_saved_server(options, read_plan(self.layout))
        check_server_options(options)
        check_format(self.layout, read_plan(self.layout))
        self.mode = probe().mode
        self._report = report
        self._on_stop = on_stop
        self._started_s = time.time()
        # Before stopping parts that still run here: without a usable server they must keep running.
        self._server = None if options.redis else self._choose_server()
        self._port_claims: list[PortClaim] = []
        own_log = self.layout.logs / "supervisor.log"
        self._supervisor = Supervisor(
            report, pids_changed=self._write_cluster_file, lifeline=lifeline, logs=[own_log]
        )
        stop_stale_parts(self.layout)
        self._plan = self._make_plan()

    def run(self, lock: ClusterLock, on_up: Callable[[ClusterUp], None]) -> None:
        """Start everything, call ``on_up``, keep everything running, and stop all of it at the end.

        Raises:
            GalaxyError: a part does not become ready; the parts that had been started are stopped.
        """
        try:
            with self._supervisor:
                try:
                    self._start()
                    on_up(self._cluster_up())
                    self._supervisor.watch()
                except Stopped:
                    pass
                finally:
                    if self._supervisor.stopped_by:
                        self._on_stop(self._supervisor.stopped_by)
                    self._stop()
        finally:
            lock.release()

    def _start(self) -> None:
        if self._plan.redis_url:
            self._check_foreign_server()
            write_plan(self.layout, self._plan)
        else:
            write_plan(self.layout, self._plan)
            self._start_server()
        for name in LEADERS:
            self._supervisor.start(self._child(name))
        for agent in self._plan.agents:
            self._supervisor.start(self._agent(agent))
        if self.options.web:
            self._supervisor.start(self._child("web", "--port", str(self._plan.web_port)))
        self._supervisor.await_ready(list(self._supervisor.children), timeout_s=self.options.timeout_s)

    def _check_foreign_server(self) -> None:
        """Connect to the user's own server once, so that only a URL that answered is saved in the plan."""
        started_s = time.monotonic()
        self._report(PartChanged(part="server", state="starting"))
        url = self._url(acl.ADMIN)
        where = f", named by {self.options.redis_from}" if self.options.redis_from else ""
        Nexus.connect(url, name="galaxy-up").close()
        self._report(
            PartChanged(
                part="server",
                state="ready",
                detail=f"yours, {without_password(url)}" + where,
                took_s=time.monotonic() - started_s,
            )
        )

    def _choose_server(self) -> servers.LocalServer:
        old = read_plan(self.layout)
        return servers.choose(servers.servers(), self.options.server, data_kind=old.server if old else "")

    def _start_server(self) -> None:
        assert self._server is not None
        port, secret = self._plan.redis_port, self._plan.password
        setinfo = acl.knows_setinfo(self._server.version)
        known = acl.hosts_of(self.layout.acl.read_text()) if self.layout.acl.exists() else ()
        hosts = tuple(dict.fromkeys((*known, *(agent.name for agent in self._plan.agents))))
        config = servers.configure(
            self.layout,
            port=port,
            password=secret,
            listen=self.options.listen,
            acl=acl.file(secret, hosts, setinfo=setinfo),
        )
        child = Child(
            name="server",
            argv=[self._server.path, str(config)],
            log=self.layout.logs / "server.log",
            notifies=False,
            umask=0o077,  # It writes its ACL, which has hashes of passwords, and its data.
        )
        self._supervisor.start(child)
        deadline = time.monotonic() + self.options.timeout_s
        # The server does not send READY=1, so connect until it answers or ends.
        while self._supervisor.runs_for("server", 0.02):
            try:
                Nexus.connect(self._url(acl.ADMIN), name="galaxy-up", timeout_s=1.0).close()
            except Unreachable as error:
                if time.monotonic() < deadline:
                    continue
                raise not_ready_in_time([child], self.options.timeout_s) from error
            self._supervisor.mark_ready("server", f"{self._server} on 127.0.0.1:{port}")
            return
        raise HostError(f"{self._server} exited at once", details=child.log_tail(), hint="galaxy doctor")

    def _stop(self) -> None:
        """Stop everything: parts, then programs (SIGTERM first), and the server last.

        Raises:
            HostError: something could not be stopped; the details name it.
        """
        children = list(self._supervisor.children)
        parts = [name for name in children if name != "server"]
        self._supervisor.stop(parts, grace_s=PARTS_GRACE_S)
        roots = [agent.cgroup_root for agent in self._plan.agents]
        left = stop_agents(self.layout, roots, mode=self.mode, report=self._report)
        self._supervisor.stop([name for name in children if name == "server"], grace_s=SERVER_GRACE_S)
        for claim in self._port_claims:
            claim.release()
        if left:
            raise HostError("cannot stop every part of the cluster", details=left.lines())
        remove_cluster(self.layout.root)

    def _url(self, role: str, host: str = "") -> str:
        """Return the URL with the login of ``role``; a user's own server has one login for all roles."""
        if self._plan.redis_url:
            return self._plan.redis_url
        return login_url(f"redis://127.0.0.1:{self._plan.redis_port}/0", self._plan.password, role, host)

    def _make_plan(self) -> ClusterPlan:
        """Choose names and ports; those of the last plan are used again where they are still free."""
        options, old = self.options, read_plan(self.layout)
        key = int(self.layout.key, 16)
        old_ports = {agent.name: agent.ports_low for agent in old.agents} if old else {}
        agents = []
        for index, name in enumerate(_agent_names(options.agents)):
            ports = claim_ports(old_ports.get(name, key + index))
            self._port_claims.append(ports)
            root = f"galaxy-{self.layout.key}" + (f"-{index + 1}" if index else "")
            agents.append(LocalAgent(name=name, cgroup_root=root, ports_low=ports.low, ports_high=ports.high))
        redis_port = options.redis_port or free_port(old.redis_port if old else REDIS_PORT + key % 400)
        web_port = options.web_port or (free_port(WEB_PORT) if options.web else 0)
        return ClusterPlan(
            format=PLAN_FORMAT,
            password=old.password if old else secrets.token_urlsafe(24),
            agents=tuple(agents),
            redis_port=0 if options.redis else redis_port,
            web_port=web_port,
            redis_url=options.redis,
            server=self._server.kind if self._server else (old.server if old else ""),
            token=old.token if old and old.token else f"{_user_name()}:{secrets.token_urlsafe(32)}",
        )

    def _child(self, role: str, *options: str, name: str = "", host: str = "") -> Child:
        """Return a Galaxy process of this cluster: ``galaxy ROLE --dir DIR OPTIONS``."""
        env = {
            "GALAXY_REDIS": self._url(role, host),
            "GALAXY_REDIS_FILE": "",
            "GALAXY_DIR": str(self.layout.root),
        }
        if role == APPMASTER:
            user, secret = split_token(self._plan.token)
            env["GALAXY_FIRST_OPERATOR"] = f"{user}:{stored_key(secret)}"
        command = [sys.executable, "-P", "-m", "galaxy.cli.main", role, "--dir", str(self.layout.root)]
        return Child(
            name=name or role,
            argv=[*command, *options],
            log=self.layout.logs / f"{(name or role).replace(' ', '-')}.log",
            env=env,
        )

    def _agent(self, agent: LocalAgent) -> Child:
        low, high = self.options.uids
        options = {
            "--name": agent.name,
            "--state": str(self.layout.agent_state(agent.name)),
            "--cgroup-root": agent.cgroup_root,
            "--ports": f"{agent.ports_low}-{agent.ports_high}",
            "--package-root": str(self.layout.packages),
            "--uids": f"{low}-{high}",
        }
        if self.options.run_user:
            options["--run-user"] = self.options.run_user
        if self.options.listen or not self._plan.redis_url:
            # No other host reaches a server on loopback, so services are published on loopback too.
            options["--address"] = self.options.listen or "127.0.0.1"
        arguments = [argument for option in options.items() for argument in option]
        name = "agent" if len(self._plan.agents) == 1 else f"agent {agent.name}"
        return self._child("agent", *arguments, name=name, host=agent.name)

    def _write_cluster_file(self) -> None:
        """Write the processes to disk, so that ``galaxy down`` can end them without this supervisor."""
        refs = [child.ref for child in self._supervisor.children.values() if child.ref]
        web = f"http://127.0.0.1:{self._plan.web_port}/" if self.options.web else ""
        self._file = ClusterFile(
            dir=str(self.layout.root),
            url=self._url(acl.CLIENT),
            flower=web,
            mode=self.mode,
            started_s=self._started_s,
            version=__version__,
            server=self._server.kind if self._server else "configured",
            listen="" if self._plan.redis_url else self.options.listen,
            detached=self.options.detach,
            token=self._plan.token,
            secret="" if self._plan.redis_url else self._plan.password,
            processes=(ProcessRef.of("supervisor", os.getpid()), *refs),
        )
        write_cluster(self._file)

    def _cluster_up(self) -> ClusterUp:
        return ClusterUp(
            cluster=self._file,
            agents=tuple(agent.name for agent in self._plan.agents),
            server=str(self._server or without_password(self._plan.redis_url)),
            took_s=time.time() - self._started_s,
        )


def _user_name() -> str:
    """Return a valid user name of Galaxy for the operating system user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", name)[:64].lstrip(".@-") or "operator"


def _agent_names(count: int) -> list[str]:
    host = socket.gethostname().split(".")[0]
    host = host if HOST.fullmatch(host) else "localhost"
    return [host] if count == 1 else [f"{host}-{index + 1}" for index in range(count)]
