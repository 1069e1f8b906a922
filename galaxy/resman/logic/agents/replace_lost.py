"""Replaces containers of dead agents at a limited rate."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.trace import agent_cause
from galaxy.resman.logic.agents.failures import place_later
from galaxy.resman.logic.groups.transitions import AgentLost
from galaxy.resman.logic.state.state import ResManState


class ReplaceLost:
    """Releases slots from dead agents, limited by a token bucket: one token for each container."""

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self.tokens = 0.0
        self.refilled_s = float("-inf")
        self.begin_step()

    def begin_step(self) -> None:
        """Save the token bucket, for ``recover``."""
        self._before = self.tokens, self.refilled_s

    def recover(self) -> None:
        """Restore the token bucket as it was before the last step, which raised."""
        self.tokens, self.refilled_s = self._before

    def step(self) -> bool:
        """Release as many slots as the rate allows; return whether more are left."""
        state = self.state
        if not state.lost_agents:
            return False
        config = state.config
        rate = max(config.replace_min, config.replace_share * len(state.containers))
        self.tokens = min(rate, self.tokens + rate * (state.now_s - self.refilled_s))
        self.refilled_s = state.now_s
        for agent in list(state.lost_agents):
            state.cause = agent_cause(agent)
            reason = Reason(code="agent-lost", message=f"{agent} stopped reporting")
            for key in state.containers.where("agent", agent):
                row = state.containers[key]
                if row.state is not ContainerState.DESTROYING:
                    if self.tokens < 1:
                        return True
                    self.tokens -= 1
                    state.record("container.lost", key, reason.message)
                if row.state is not ContainerState.ALLOCATING:
                    record = state.agents[agent]
                    state.agents.put(agent, replace(record, left=record.left + 1))
                state.apply(key, AgentLost(incarnation=row.incarnation, reason=reason))
                if row.state is not ContainerState.DESTROYING:
                    place_later(state, key)
            del state.lost_agents[agent]
        return False
