"""Queries that AppMaster answers from stored rows, outside its loop: agents and the state of the cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from galaxy import __version__
from galaxy.appmaster.cluster_queries import agent_loads, agent_views, cluster_status_view, refused_agents
from galaxy.appmaster.logic.config import AppMasterConfig
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
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import JobRecord, PodRecord
from galaxy.model.stored.user import UserRecord
from galaxy.operations.authn import authenticate
from galaxy.operations.authz import ANY_USER
from galaxy.operations.declaration import Caller, by_name, query
from galaxy.operations.dispatch import authorised
from galaxy.operations.nonces import Nonces
from galaxy.operations.paging import page_of
from galaxy.suggest import CUTOFF_SHORT, did_you_mean

SAFE_MODE: Final = "safe-mode"
"""Key of the row that ResMan's table ``cluster`` has while ResMan is in safe mode."""

N = TypeVar("N", bound=Struct)


class Reader(Protocol):
    """The reads that queries need from Nexus; every call may raise ``Unreachable``."""

    def read_table(self, role: str, table: str, kind: type[N]) -> dict[str, N]: ...
    def usages(self) -> dict[str, AgentUsage]: ...
    def heartbeats(self) -> HeartbeatsRead: ...
    def leader(self, role: str) -> LeaderView | None: ...


@query(ListAgents, authority=ANY_USER)
def list_agents(nexus: Reader, body: ListAgents, _: Caller) -> AgentList:
    """List agents by name.

    Raises:
        NotFound: no agent has that name.
    """
    heartbeats = nexus.heartbeats()
    agents = _agents(nexus, heartbeats)
    if not body.agent:
        page, after = page_of(agents, lambda view: (view.agent,), body)
        refused = refused_agents(heartbeats, {view.agent for view in agents})
        return AgentList(agents=tuple(page), refused=refused, next=after)
    named = tuple(view for view in agents if view.agent == body.agent)
    if not named:
        raise NotFound(
            f'there is no agent "{body.agent}"',
            details=did_you_mean(body.agent, [view.agent for view in agents], cutoff=CUTOFF_SHORT),
            hint="galaxy agent list",
        )
    return AgentList(agents=named)


@query(ClusterStatus, authority=ANY_USER)
def show_status(nexus: Reader, _: ClusterStatus, __: Caller) -> ClusterStatusView:
    """Show leaders, counts and totals of the cluster."""
    heartbeats = nexus.heartbeats()
    agents = _agents(nexus, heartbeats)
    leaders = [nexus.leader(role) for role in (RESMAN, APPMASTER)]
    return cluster_status_view(
        leaders=[leader for leader in leaders if leader is not None],
        agents=agents,
        refused=refused_agents(heartbeats, {view.agent for view in agents}),
        jobs=nexus.read_table(APPMASTER, "jobs", JobRecord).values(),
        pods=nexus.read_table(APPMASTER, "pods", PodRecord).values(),
        safe_mode=nexus.read_table(RESMAN, "cluster", Reason).get(SAFE_MODE),
        version=__version__,
    )


OPERATIONS: Final = by_name([list_agents, show_status])


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
        users = self._nexus.read_table(APPMASTER, "users", UserRecord)
        now_s = self._now_s()
        user = authenticate(
            users,
            request,
            required=len(users) > 0 or self._config.require_users,
            now_s=now_s,
            ttl_s=self._config.signature_ttl_s,
        )
        if user is not None:
            with self._lock:
                if not self._nonces.is_new(user.user, request.nonce, now_s):
                    raise Refused("this request was made before")
        return Caller(name=request.user, user=user, key=request.key)


def _agents(nexus: Reader, heartbeats: HeartbeatsRead) -> tuple[AgentView, ...]:
    containers = nexus.read_table(RESMAN, "containers", Container)
    groups = nexus.read_table(RESMAN, "groups", Group)
    records = nexus.read_table(RESMAN, "agents", AgentRecord)
    last = {heartbeat.agent: heartbeat for heartbeat in heartbeats.heartbeats}
    return agent_views(records.values(), agent_loads(containers.values(), groups), nexus.usages(), last)
