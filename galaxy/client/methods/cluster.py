"""Services, agents and the cluster."""

from __future__ import annotations

from functools import partial

from galaxy.client.methods.asking import Asking
from galaxy.client.transport import retry_while_away
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import (
    Discover,
)
from galaxy.model.api.safemode import SafeModeView, ShowSafeMode
from galaxy.model.api.views import (
    AgentView,
    ClusterStatusView,
    EndpointView,
    LeaderView,
)
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import APPMASTER, RESMAN


class ClusterMethods(Asking):
    """Services, agents and the cluster."""

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
