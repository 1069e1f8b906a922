"""Nexus: all use of Redis except queues: locks, tables, heartbeats, trace, answers, sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import redis

from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant, LockHeld, TakenReports
from galaxy.errors import Refused
from galaxy.model.api.answers import Reply
from galaxy.model.api.views import LeaderView
from galaxy.model.base import Struct
from galaxy.model.messages import names
from galaxy.model.messages.agent import AgentReport, AgentUsage, HeartbeatsRead, MeterSample
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus import acl
from galaxy.nexus.change_feed import ChangeFeed
from galaxy.nexus.confirm import Confirmer
from galaxy.nexus.connection import check_server, client_name, open_client, reaching
from galaxy.nexus.election import RedisElections
from galaxy.nexus.forget import forget_agents
from galaxy.nexus.heartbeats import Heartbeats
from galaxy.nexus.mailboxes import Mailboxes
from galaxy.nexus.packages import Packages
from galaxy.nexus.replies import Replies
from galaxy.nexus.sentinel import Sentinels
from galaxy.nexus.session import Session
from galaxy.nexus.store import FencedStore
from galaxy.nexus.trace import Trace
from galaxy.nexus.url import parse

N = TypeVar("N", bound=Struct)

LEASE_TIMEOUT_S = 1.0
"""Timeout of lease traffic: a later answer is useless to a leader."""


class Nexus:
    """A connection to one cluster's Redis; threads may share it.

    Every method raises ``Unreachable`` when Redis does not answer in time, and recovers by itself when
    it answers again. ``sentinels`` are those of the URL, if any; other connections of this process to
    the same Redis must share them, so that all follow a new master together.
    """

    def __init__(self, url: str, *, name: str) -> None:
        parsed = parse(url)
        self.url = url
        self.name = name
        self.address = parsed.address
        sentinels = Sentinels(parsed, name=client_name(name)) if parsed.master else None
        self.sentinels = sentinels
        self._client = open_client(url, name=name, sentinels=sentinels)
        self._lease_client = open_client(url, name=name, socket_s=LEASE_TIMEOUT_S, sentinels=sentinels)
        self._elections = RedisElections(
            self._client,
            self._lease_client,
            self.address,
            confirmer=Confirmer(self._lease_client, parsed.replicas, self.address, sentinels),
        )
        self._store = FencedStore(
            self._client,
            self.address,
            confirmer=Confirmer(self._client, parsed.replicas, self.address, sentinels),
        )
        self._heartbeats = Heartbeats(self._client, self.address)
        self._mailboxes = Mailboxes(self._client, self.address)
        self._feed = ChangeFeed(self._client, self.address)
        self._trace = Trace(self._client, self.address)
        self._replies = Replies(self._client, self.address)
        self.packages = Packages(self._client, self.address)

    @classmethod
    def connect(cls, url: str, *, name: str, timeout_s: float = 5.0) -> Nexus:
        """Return a Nexus whose server has answered, accepted the login, and is new enough.

        Raises:
            UsageError: ``url`` is not a Redis URL. Refused: wrong password. Unreachable: no answer within
                ``timeout_s``. GalaxyError: the server is too old.
        """
        nexus = cls(url, name=name)
        probe = open_client(url, name=name, socket_s=min(timeout_s, 2.0), sentinels=nexus.sentinels)
        try:
            check_server(probe, nexus.address, timeout_s)
        except BaseException:
            nexus.close()
            raise
        finally:
            probe.close()
        return nexus

    def ping(self) -> None:
        """Return when Redis has answered."""
        with reaching(self.address):
            self._client.ping()

    def check_agent(self, host: str) -> None:
        """Check that this login may consume the orders of ``host``.

        Raises:
            Refused: the login is another host's, or not an agent's.
        """
        try:
            with reaching(self.address):
                self._client.llen(names.agent_queue(host))
        except Refused as error:
            raise Refused(
                f'this login may not take orders for host "{host}" from Redis at {self.address}',
                details=[error.message],
                hint=f"`galaxy redis url agent --host {host}` prints its own; or --name the login's host",
            ) from error

    def __enter__(self) -> Nexus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every idle connection; connections in use by other threads stay open until released."""
        for client in (self._client, self._lease_client):
            client.connection_pool.disconnect(inuse_connections=False)

    @property
    def client(self) -> redis.Redis:
        """The plain client, for the few callers that send Redis commands themselves."""
        return self._client

    def make_login(self, role: str, secret: str, host: str = "") -> None:
        """Create or replace the login of ``role`` and save the server's ACL file; for ``admin`` only."""
        with reaching(self.address):
            untyped: Any = self._client
            setinfo = acl.knows_setinfo(untyped.info("server")["redis_version"])
            _, user, *rules = acl.line(role, secret, host, setinfo=setinfo).split()
            untyped.execute_command("ACL SETUSER", user, "reset", *rules)
            untyped.execute_command("ACL SAVE")

    def drop_login(self, role: str, host: str = "") -> bool:
        """Delete the login of ``role`` and save the server's ACL file; return whether there was one.

        Its connections end. For ``admin`` only.
        """
        with reaching(self.address):
            untyped: Any = self._client
            dropped = untyped.execute_command("ACL DELUSER", acl.login(role, host))
            untyped.execute_command("ACL SAVE")
        return bool(dropped)

    # Leaders.

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Grant | LockHeld:
        return self._elections.campaign(role, owner, ttl_s=ttl_s, address=address)

    def renew(self, grant: Grant) -> bool:
        return self._elections.renew(grant)

    def release(self, grant: Grant) -> None:
        self._elections.release(grant)

    def await_release(self, role: str, timeout_s: float) -> None:
        self._elections.await_release(role, timeout_s)

    def leader(self, role: str) -> LeaderView | None:
        """Return who leads ``role`` now, or None."""
        return self._elections.leader(role)

    # Tables.

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        self._store.load(role, tables)

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        self._store.commit(grant, serial, changes, trace)

    def read_table(self, role: str, table: str, kind: type[N]) -> dict[str, N]:
        """Return the rows of a role's table as last committed, by key."""
        return self._store.read_table(role, table, kind)

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[N]) -> dict[str, N]:
        """Return those of the rows ``names`` of a role's table that there are, as last committed."""
        return self._store.read_some(role, table, names, kind)

    def read_names(self, role: str, table: str) -> list[str]:
        """Return the keys of the rows of a role's table, sorted, without the rows."""
        return self._store.read_names(role, table)

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        """Return the rows of a role that were committed after the position ``after``; see ``ChangeFeed``."""
        return self._feed.read(role, after, timeout_s)

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        """Pass all rows of a table to ``accept`` in pieces; return the last commit that they may include."""
        return self._store.read_rows(role, table, accept)

    def trace(self, subjects: Sequence[str] = (), limit: int = 100) -> list[TraceEvent]:
        """Return the newest events about ``subjects`` (a job includes its pods), oldest first."""
        return self._trace.read(subjects, limit)

    # Heartbeats.

    def send_heartbeat(
        self,
        agent: str,
        *,
        boot: str,
        containers: int = 0,
        pods: int = 0,
        usage: AgentUsage | None = None,
        meters: MeterSample | None = None,
        trouble: str = "",
        leaving: bool = False,
    ) -> float:
        """Record a heartbeat of ``agent``, with digests of its state; return Redis' clock in Unix seconds.

        ``trouble`` is why the agent cannot carry out orders; empty when it can. ``leaving`` says that
        it is being stopped on purpose.
        """
        return self._heartbeats.send(
            agent,
            boot=boot,
            containers=containers,
            pods=pods,
            usage=usage,
            meters=meters,
            trouble=trouble,
            leaving=leaving,
        )

    def heartbeats(self, role: str = "") -> HeartbeatsRead:
        """Return the last heartbeat of every agent, Redis' clock, and who has unread reports for ``role``."""
        return self._heartbeats.read(role)

    def forget_agents(self, agents: Sequence[str]) -> None:
        """Delete the heartbeats, mailboxes and queues of agents that are not known any more."""
        forget_agents(self._client, agents, self.address)

    # Reports.

    def post_report(self, role: str, report: AgentReport, *, replaces: bool = False) -> bool:
        """Post a report of an agent to the leader of ``role``; see ``Mailboxes.post``."""
        return self._mailboxes.post(role, report, replaces=replaces)

    def take_reports(self, grant: Grant, wait_s: float) -> TakenReports:
        """Return some of the reports that no leader has read; see ``Mailboxes.take``."""
        return self._mailboxes.take(grant, wait_s)

    def heartbeats_of(self, agents: Sequence[str]) -> HeartbeatsRead:
        """Return the last heartbeats of some agents, and Redis' clock."""
        return self._heartbeats.read_some(agents)

    def usages_of(self, agents: Sequence[str]) -> dict[str, AgentUsage]:
        """Return the last usage samples of some agents."""
        return self._heartbeats.usages_of(agents)

    def usages(self) -> dict[str, AgentUsage]:
        """Return the last usage sample of every agent."""
        return self._heartbeats.usages()

    def meters(self) -> dict[str, MeterSample]:
        """Return the last meters of every agent."""
        return self._heartbeats.meters()

    # Clients.

    def reply(self, replies: Sequence[Reply]) -> None:
        """Deliver answers."""
        self._replies.push(replies)

    def await_reply(self, reply_id: str, timeout_s: float) -> bytes | None:
        """Return the answer that arrives for ``reply_id``, JSON of ``Answer``; None after ``timeout_s``."""
        return self._replies.wait(reply_id, timeout_s)

    def session(self, session_id: str) -> Session:
        """Return one end of the session ``session_id``; sends nothing."""
        return Session(self._client, self.address, session_id)
