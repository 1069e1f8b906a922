"""``galaxy up``'s back: the process that starts a cluster, keeps it running, and ends it."""

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
    PortRange,
    check_format,
    claim_ports,
    free_port,
    read_plan,
    write_plan,
)
from galaxy.cli.local.shutdown import PARTS_GRACE_S, SERVER_GRACE_S, stop_agents, stop_stale_parts
from galaxy.cli.local.supervisor import PartChanged, Stopped, Supervisor, not_ready_in_time
from galaxy.client.cluster_file import ClusterFile, ProcessRef, remove_cluster, write_cluster
from galaxy.client.login_urls import login_url
from galaxy.container.host_support import probe
from galaxy.container.kernel.uid_ranges import UIDS_DEFAULT
from galaxy.errors import HostError, Unreachable
from galaxy.ids import HOST
from galaxy.model.api.signing import split_token, stored_key
from galaxy.model.base import Struct
from galaxy.model.messages.names import APPMASTER
from galaxy.nexus import acl
from galaxy.nexus.nexus import Nexus

TIMEOUT_S: Final = 60.0
TIMEOUT_MIN_S: Final = 1.0
TIMEOUT_MAX_S: Final = 3600.0
REDIS_PORT: Final = 6390
WEB_PORT: Final = 5555
LEADERS: Final = ("resman", "appmaster")


class UpOptions(Struct, frozen=True, kw_only=True):
    """What the person who typed ``galaxy up`` asked for; empty and 0 mean: choose."""

    dir: str
    redis: str = ""
    server: str = ""
    listen: str = ""
    agents: int = 1
    web: bool = True
    web_port: int = 0
    redis_port: int = 0
    uids: tuple[int, int] = UIDS_DEFAULT
    run_user: str = ""
    timeout_s: float = TIMEOUT_S
    """For the server to answer, and then for all parts to be ready."""
    detach: bool = False


def with_saved_server(wishes: UpOptions, old: ClusterPlan | None) -> UpOptions:
    """Return ``wishes`` with the foreign server that the folder was used with, unless another is named."""
    if old is None or not old.redis_url or wishes.redis or wishes.server:
        return wishes
    return msgspec.structs.replace(wishes, redis=old.redis_url)


class ClusterUp(Struct, frozen=True, kw_only=True):
    """The cluster is up; what there is to tell about it."""

    cluster: ClusterFile
    agents: tuple[str, ...]
    server: str
    took_s: float


class LocalCluster:
    """A cluster in one folder, run by this process until somebody asks for the end."""

    def __init__(self, wishes: UpOptions, report: Callable[[PartChanged], None], lifeline: int) -> None:
        self.layout = Layout(Path(wishes.dir))
        self.wishes = wishes = with_saved_server(wishes, read_plan(self.layout))
        check_format(self.layout, read_plan(self.layout))
        self.mode = probe().mode
        self._report = report
        self._started_s = time.time()
        # Before anything of a cluster that still runs here is ended: there may be no server for it.
        self._server = None if wishes.redis else self._choose_server()
        self._ranges: list[PortRange] = []
        own_log = self.layout.logs / "supervisor.log"
        self._supervisor = Supervisor(report, changed=self._write, lifeline=lifeline, logs=[own_log])
        stop_stale_parts(self.layout)
        self._plan = self._make_plan()

    def run(self, held: ClusterLock, up: Callable[[ClusterUp], None]) -> None:
        """Bring everything up, call ``up``, watch over it, and end all of it.

        Raises:
            GalaxyError: something does not come up; what had been started is ended again.
        """
        try:
            with self._supervisor:
                try:
                    self._start()
                    up(self._is_up())
                    self._supervisor.watch()
                except Stopped:
                    pass
                finally:
                    self._end()
        finally:
            held.release()

    def _start(self) -> None:
        started = time.monotonic()
        if self._plan.redis_url:
            self._report(PartChanged(part="server", state="starting"))
            url = self._url(acl.ADMIN)
            Nexus.connect(url, name="galaxy-up").close()  # A server that never answered is not remembered.
            write_plan(self.layout, self._plan)
            detail = f"yours, {servers.without_password(url)}"
            self._report(
                PartChanged(part="server", state="ready", detail=detail, took_s=time.monotonic() - started)
            )
        else:
            write_plan(self.layout, self._plan)
            self._start_server()
        for name in LEADERS:
            self._supervisor.start(self._child(name))
        for agent in self._plan.agents:
            self._supervisor.start(self._agent(agent))
        if self.wishes.web:
            self._supervisor.start(self._child("web", "--port", str(self._plan.web_port)))
        self._supervisor.await_ready(list(self._supervisor.children), timeout_s=self.wishes.timeout_s)

    def _choose_server(self) -> servers.LocalServer:
        old = read_plan(self.layout)
        return servers.choose(servers.servers(), self.wishes.server, kept=old.server if old else "")

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
            listen=self.wishes.listen,
            acl=acl.file(secret, hosts, setinfo=setinfo),
        )
        child = Child(
            name="server",
            argv=[self._server.path, str(config)],
            log=self.layout.logs / "server.log",
            notifies=False,
        )
        self._supervisor.start(child)
        deadline = time.monotonic() + self.wishes.timeout_s
        # A server that is not ours tells nobody that it is ready: ask, unless it ends first.
        while self._supervisor.alive_during("server", 0.02):
            try:
                Nexus.connect(self._url(acl.ADMIN), name="galaxy-up", timeout_s=1.0).close()
            except Unreachable as error:
                if time.monotonic() < deadline:
                    continue
                raise not_ready_in_time([child], self.wishes.timeout_s) from error
            self._supervisor.mark_ready("server", f"{self._server} on 127.0.0.1:{port}")
            return
        raise HostError(f"{self._server} ends at once", details=child.log_tail(), hint="galaxy doctor")

    def _end(self) -> None:
        """End everything; programs first get SIGTERM, the server goes last."""
        children = list(self._supervisor.children)
        parts = [name for name in children if name != "server"]
        self._supervisor.stop(parts, grace_s=PARTS_GRACE_S)
        roots = [agent.cgroup_root for agent in self._plan.agents]
        left = stop_agents(self.layout, roots, mode=self.mode, report=self._report)
        self._supervisor.stop([name for name in children if name == "server"], grace_s=SERVER_GRACE_S)
        for ports in self._ranges:
            ports.release()
        if left:
            raise HostError("cannot end all of it", details=left.lines())
        remove_cluster(self.layout.root)

    def _url(self, role: str, host: str = "") -> str:
        """Return the URL by which ``role`` logs in; a server that is not ours has one for all."""
        if self._plan.redis_url:
            return self._plan.redis_url
        return login_url(f"redis://127.0.0.1:{self._plan.redis_port}/0", self._plan.password, role, host)

    def _make_plan(self) -> ClusterPlan:
        """Decide names and ports: what the folder remembers, as far as it still can be had."""
        wishes, old = self.wishes, read_plan(self.layout)
        key = int(self.layout.key, 16)
        before = {agent.name: agent.ports_low for agent in old.agents} if old else {}
        agents = []
        for index, name in enumerate(_agent_names(wishes.agents)):
            ports = claim_ports(before.get(name, key + index))
            self._ranges.append(ports)
            root = f"galaxy-{self.layout.key}" + (f"-{index + 1}" if index else "")
            agents.append(LocalAgent(name=name, cgroup_root=root, ports_low=ports.low, ports_high=ports.high))
        redis_port = wishes.redis_port or free_port(old.redis_port if old else REDIS_PORT + key % 400)
        web_port = wishes.web_port or (free_port(WEB_PORT) if wishes.web else 0)
        return ClusterPlan(
            format=PLAN_FORMAT,
            password=old.password if old else secrets.token_urlsafe(24),
            agents=tuple(agents),
            redis_port=0 if wishes.redis else redis_port,
            web_port=web_port,
            redis_url=wishes.redis,
            server=self._server.kind if self._server else (old.server if old else ""),
            token=old.token if old and old.token else f"{_user()}:{secrets.token_urlsafe(32)}",
        )

    def _child(self, part: str, *options: str, name: str = "", host: str = "") -> Child:
        env = {"GALAXY_REDIS": self._url(part, host), "GALAXY_DIR": str(self.layout.root)}
        if part == APPMASTER:
            user, secret = split_token(self._plan.token)
            env["GALAXY_FIRST_OPERATOR"] = f"{user}:{stored_key(secret)}"
        return Child(
            name=name or part,
            argv=[
                sys.executable,
                "-P",
                "-m",
                "galaxy.cli.main",
                part,
                "--dir",
                str(self.layout.root),
                *options,
            ],
            log=self.layout.logs / f"{(name or part).replace(' ', '-')}.log",
            env=env,
        )

    def _agent(self, agent: LocalAgent) -> Child:
        options = {
            "--name": agent.name,
            "--state": str(self.layout.agent_state(agent.name)),
            "--cgroup-root": agent.cgroup_root,
            "--ports": f"{agent.ports_low}-{agent.ports_high}",
            "--package-root": str(self.layout.packages),
        }
        low, high = self.wishes.uids
        options["--uids"] = f"{low}-{high}"
        if self.wishes.run_user:
            options["--run-user"] = self.wishes.run_user
        if self.wishes.listen or not self._plan.redis_url:
            # A server on loopback means that no other host takes part: services are reached there too.
            options["--address"] = self.wishes.listen or "127.0.0.1"
        words = [word for option in options.items() for word in option]
        name = "agent" if len(self._plan.agents) == 1 else f"agent {agent.name}"
        return self._child("agent", *words, name=name, host=agent.name)

    def _write(self) -> None:
        """Write down what runs, so that anybody can find it, and end it when we are gone."""
        refs = [child.ref for child in self._supervisor.children.values() if child.ref]
        web = f"http://127.0.0.1:{self._plan.web_port}/" if self.wishes.web else ""
        self._file = ClusterFile(
            dir=str(self.layout.root),
            url=self._url(acl.CLIENT),
            flower=web,
            mode=self.mode,
            started_s=self._started_s,
            version=__version__,
            server=self._server.kind if self._server else "configured",
            detached=self.wishes.detach,
            token=self._plan.token,
            secret="" if self._plan.redis_url else self._plan.password,
            processes=(ProcessRef.of("supervisor", os.getpid()), *refs),
        )
        write_cluster(self._file)

    def _is_up(self) -> ClusterUp:
        return ClusterUp(
            cluster=self._file,
            agents=tuple(agent.name for agent in self._plan.agents),
            server=str(self._server or servers.without_password(self._plan.redis_url)),
            took_s=time.time() - self._started_s,
        )


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", name)[:64].lstrip(".@-") or "operator"


def _agent_names(count: int) -> list[str]:
    host = socket.gethostname().split(".")[0]
    host = host if HOST.fullmatch(host) else "localhost"
    return [host] if count == 1 else [f"{host}-{index + 1}" for index in range(count)]
