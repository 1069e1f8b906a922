"""Queries that AppMaster answers from stored rows, outside its loop: agents and the state of the cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from galaxy import __version__
from galaxy.appmaster.cluster_queries import cluster_status_view
from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.usage_queries import list_usage
from galaxy.errors import NotFound, Refused
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.answers import Answer
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.request import Request
from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentUsage, HeartbeatsRead
from galaxy.model.messages.container import Reason
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.stored.agent import AgentRecord, Registration
from galaxy.model.stored.cluster import ALL, AgentLoad, AgentSums, JobSums
from galaxy.model.stored.user import UserRecord
from galaxy.operations.agent_views import agent_views
from galaxy.operations.authn import authenticate
from galaxy.operations.authz import ANY_USER
from galaxy.operations.declaration import Caller, by_name, query
from galaxy.operations.dispatch import authorised
from galaxy.operations.nonces import Nonces
from galaxy.operations.paging import PAGE_ROWS_MAX, page_of_names
from galaxy.suggest import CUTOFF_SHORT, did_you_mean

SAFE_MODE: Final = "safe-mode"
"""Key of the row that ResMan's table ``cluster`` has while ResMan is in safe mode."""

N = TypeVar("N", bound=Struct)


class Reader(Protocol):
    """The reads that queries need from Nexus; every call may raise ``Unreachable``.

    No call reads the rows of a whole table: a client must not make a leader decode one.
    """

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[N]) -> dict[str, N]: ...
    def read_names(self, role: str, table: str) -> list[str]: ...
    def usages_of(self, agents: Sequence[str]) -> dict[str, AgentUsage]: ...
    def heartbeats_of(self, agents: Sequence[str]) -> HeartbeatsRead: ...
    def leader(self, role: str) -> LeaderView | None: ...


@query(ListAgents, authority=ANY_USER)
def list_agents(nexus: Reader, body: ListAgents, _: Caller) -> AgentList:
    """List agents by name.

    Raises:
        NotFound: no agent has that name.
    """
    if body.agent:
        views = _agents(nexus, [body.agent])
        if not views:
            raise NotFound(
                f'there is no agent "{body.agent}"',
                details=did_you_mean(body.agent, nexus.read_names(RESMAN, "agents"), cutoff=CUTOFF_SHORT),
                hint="galaxy agent list",
            )
        return AgentList(agents=views)
    page, after = page_of_names(nexus.read_names(RESMAN, "agents"), body)
    refused, registered = _agent_sums(nexus).refused, () if body.after else _registered(nexus)
    return AgentList(agents=_agents(nexus, page), refused=refused, registered=registered, next=after)


@query(ClusterStatus, authority=ANY_USER)
def show_status(nexus: Reader, _: ClusterStatus, __: Caller) -> ClusterStatusView:
    """Show leaders, counts and totals of the cluster."""
    leaders = [nexus.leader(role) for role in (RESMAN, APPMASTER)]
    return cluster_status_view(
        leaders=[leader for leader in leaders if leader is not None],
        agents=_agent_sums(nexus),
        jobs=nexus.read_some(APPMASTER, "sums", [ALL], JobSums).get(ALL) or JobSums(),
        safe_mode=nexus.read_some(RESMAN, "cluster", [SAFE_MODE], Reason).get(SAFE_MODE),
        version=__version__,
    )


OPERATIONS: Final = by_name([list_agents, show_status, list_usage])


class StoredQueries:
    """Answers the operations that need no decision; threads may share it."""

    def __init__(
        self,
        nexus: Reader,
        config: AppMasterConfig | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._nexus = nexus
        self._config = config or AppMasterConfig()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._nonces = Nonces(2 * self._config.signature_ttl_s, self._config.nonces_max)

    def answer(self, request: Request) -> Answer | None:
        """Answer ``request``, or return None for one that AppMaster's loop answers.

        Raises:
            Refused: the request is not signed by a user, or is a replay. NotFound: from the query.
            Unreachable: Nexus does not answer.
        """
        operation = OPERATIONS.get(request.op)
        if operation is None:
            return None
        caller = self._caller(request)
        result = authorised(operation, self._nexus, request.body, caller)
        return Answer(key=request.key, result=result)

    def _caller(self, request: Request) -> Caller:
        users = self._nexus.read_some(APPMASTER, "users", [request.user], UserRecord)
        has_users = bool(users) or bool(self._nexus.read_names(APPMASTER, "users"))
        now_s = self._now_s()
        user = authenticate(
            users,
            request,
            required=has_users or self._config.require_users,
            now_s=now_s,
            ttl_s=self._config.signature_ttl_s,
        )
        if user is not None:
            with self._lock:
                if not self._nonces.is_new(user.user, request.nonce, now_s):
                    raise Refused("this request was made before")
        return Caller(name=request.user, user=user, key=request.key, nonce=request.nonce)


def _agents(nexus: Reader, names: Sequence[str]) -> tuple[AgentView, ...]:
    records = nexus.read_some(RESMAN, "agents", names, AgentRecord)
    loads = nexus.read_some(RESMAN, "loads", names, AgentLoad)
    heartbeats = {heartbeat.agent: heartbeat for heartbeat in nexus.heartbeats_of(names).heartbeats}
    return agent_views(records.values(), loads, nexus.usages_of(names), heartbeats)


def _registered(nexus: Reader) -> tuple[Registration, ...]:
    names = nexus.read_names(RESMAN, "registrations")[:PAGE_ROWS_MAX]
    rows = nexus.read_some(RESMAN, "registrations", names, Registration) if names else {}
    return tuple(rows[name] for name in sorted(rows))


def _agent_sums(nexus: Reader) -> AgentSums:
    return nexus.read_some(RESMAN, "sums", [ALL], AgentSums).get(ALL) or AgentSums()
