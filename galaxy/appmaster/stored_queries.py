"""What AppMaster answers from stored rows, beside its loop: agents and the state of the cluster."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from galaxy import __version__
from galaxy.appmaster.cluster_queries import agent_views, cluster_view, loads, refused_agents
from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.identity.authn import authenticate
from galaxy.appmaster.logic.identity.nonces import Nonces
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

SAFE_MODE: Final = "safe-mode"
"""Row of ResMan's table ``cluster`` that is there while it is in safe mode."""

N = TypeVar("N", bound=Struct)


class Reader(Protocol):
    """What is read of Nexus; every call may raise ``Unreachable``."""

    def read_table(self, role: str, table: str, kind: type[N]) -> dict[str, N]: ...
    def usages(self) -> dict[str, AgentUsage]: ...
    def beats(self) -> HeartbeatsRead: ...
    def leader(self, role: str) -> LeaderView | None: ...


class AppMasterService:
    """Answers the requests that need no decision; ``None`` leaves a request to the loop."""

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
        """Answer ``agent.list`` and ``cluster.status``.

        Raises:
            Refused: whoever asks is no user. NotFound: the agent that is named is not known.
            Unreachable: Nexus does not answer.
        """
        match request.body:
            case ListAgents(agent=agent):
                self._check(request)
                return Answer(key=request.key, result=self._list(agent))
            case ClusterStatus():
                self._check(request)
                return Answer(key=request.key, result=self._status())
        return None

    def _check(self, request: Request) -> None:
        """Make sure of who asks; any user may.

        Raises:
            Refused: it is not one, or a replay of what one asked.
        """
        users = self._nexus.read_table(APPMASTER, "users", UserRecord)
        now_s = self._now_s()
        user = authenticate(users, request, now_s, self._config)
        if user is not None:
            with self._lock:
                if not self._nonces.is_new(user.user, request.nonce, now_s):
                    raise Refused("this request was made before")

    def _list(self, agent: str) -> AgentList:
        seen = self._nexus.beats()
        agents = self._agents(seen)
        if not agent:
            return AgentList(agents=agents, refused=refused_agents(seen, {view.agent for view in agents}))
        named = tuple(view for view in agents if view.agent == agent)
        if not named:
            known = [view.agent for view in agents]
            close = difflib.get_close_matches(agent, known, n=3, cutoff=0.5)
            details = [f"did you mean {' or '.join(close)}?"] if close else []
            raise NotFound(f'there is no agent "{agent}"', details=details, hint="galaxy agent list")
        return AgentList(agents=named)

    def _agents(self, seen: HeartbeatsRead) -> tuple[AgentView, ...]:
        nexus = self._nexus
        containers = nexus.read_table(RESMAN, "containers", Container)
        groups = nexus.read_table(RESMAN, "groups", Group)
        records = nexus.read_table(RESMAN, "agents", AgentRecord)
        beats = {beat.agent: beat for beat in seen.beats}
        return agent_views(records.values(), loads(containers.values(), groups), nexus.usages(), beats)

    def _status(self) -> ClusterStatusView:
        nexus = self._nexus
        seen = nexus.beats()
        agents = self._agents(seen)
        leaders = [nexus.leader(role) for role in (RESMAN, APPMASTER)]
        return cluster_view(
            leaders=[leader for leader in leaders if leader is not None],
            agents=agents,
            refused=refused_agents(seen, {view.agent for view in agents}),
            jobs=nexus.read_table(APPMASTER, "jobs", JobRecord).values(),
            pods=nexus.read_table(APPMASTER, "pods", PodRecord).values(),
            safe_mode=nexus.read_table(RESMAN, "cluster", Reason).get(SAFE_MODE),
            version=__version__,
        )
