"""Services, agents and the cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from galaxy.client.methods.asking import Asking
from galaxy.client.transport import retry_while_away
from galaxy.errors import Refused, Unreachable
from galaxy.model.api.agents import AgentList, ListAgents
from galaxy.model.api.body import PagedBody
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import (
    Discover,
)
from galaxy.model.api.machines import ListMachines
from galaxy.model.api.views import (
    AgentView,
    ClusterStatusView,
    EndpointView,
    LeaderView,
)
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import APPMASTER, RESMAN

T = TypeVar("T")


class ClusterMethods(Asking):
    """Services, agents and the cluster."""

    def discover(self, service: str, *, all: bool = False) -> list[EndpointView]:
        """Return the healthy endpoints of a service, or ``all`` of them with their states."""
        return self._all(Discover(service=service, all=all), lambda page: page.endpoints)

    def agents(self) -> list[AgentView]:
        """List the agents, by name."""
        return list(self.agent_list().agents)

    def agent_list(self) -> AgentList:
        """List the agents by name, and the reasons why other hosts that send heartbeats are refused.

        While no AppMaster leads, ResMan answers: for operators only, and without what is used.
        """
        return self._from_either(
            lambda: self._agent_list(ListAgents()), lambda: self._agent_list(ListMachines())
        )

    def agent(self, name: str) -> AgentView:
        """Return one agent; without AppMaster as in ``agent_list``."""
        return self._from_either(
            lambda: self._ask(ListAgents(agent=name)), lambda: self._ask(ListMachines(agent=name))
        ).agents[0]

    def _agent_list(self, body: PagedBody[AgentList]) -> AgentList:
        first = self._ask(replace(body, limit=self.page_limit))
        if not first.next:
            return first
        rest = self._all(replace(body, after=first.next), lambda page: page.agents)
        return AgentList(agents=(*first.agents, *rest), refused=first.refused, registered=first.registered)

    def _from_either(self, appmaster: Callable[[], T], resman: Callable[[], T]) -> T:
        """Return what AppMaster answers, or what ResMan answers if no AppMaster leads.

        Raises:
            GalaxyError: the error of AppMaster, if ResMan does not answer either.
        """
        nexus = self._transport.nexus
        if retry_while_away(partial(nexus.leader, APPMASTER), self.timeout_s) is not None:
            try:
                return appmaster()
            except Unreachable:
                if nexus.leader(APPMASTER) is not None:
                    raise
        try:
            return resman()
        except (Refused, Unreachable) as error:
            raise Unreachable(
                "no AppMaster leads, and ResMan lists agents for operators only"
                if isinstance(error, Refused)
                else "neither AppMaster nor ResMan answers",
                details=[error.message],
                hint="galaxy status, and the logs of the leaders",
            ) from error

    def status(self) -> ClusterStatusView:
        """Return leaders, counts and totals of the cluster."""
        return self._ask(ClusterStatus())

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
