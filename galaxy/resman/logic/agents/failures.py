"""Failures to create containers: later retries, and agents that fail often are chosen last."""

from __future__ import annotations

from galaxy.model.messages.container import ContainerState, Reason
from galaxy.resman.logic.groups.transitions import SlotFailed
from galaxy.resman.logic.state.state import ResManState


def place_later(state: ResManState, key: str) -> None:
    """Schedule the placement of a slot that waits after a failure."""
    row = state.containers[key]
    if row.state is ContainerState.PENDING:
        state.retry_timers.start(key, row.retry_s)


def give_up(state: ResManState, key: str) -> None:
    """Stop waiting for an agent to create a container, and place the slot elsewhere."""
    row = state.containers[key]
    waited_s = round(state.now_s - row.since_s)
    message = f"{row.agent} has not created it within {waited_s} s"
    count_failure(state, row.agent)
    state.record("container.failed", key, message)
    state.detach_incarnation(key)
    reason = Reason(code="create-timeout", message=message)
    state.apply(key, SlotFailed(incarnation=row.incarnation, reason=reason))
    place_later(state, key)


def count_failure(state: ResManState, agent: str) -> None:
    """Count a failure to create a container against its agent."""
    watch = state.watch_to_change(agent)
    watch.failures += 1
    watch.failed_s = state.now_s
    if watch.failures >= state.config.flaky_failures:
        state.flaky_agents[agent] = None
        state.view.set_flaky(agent, True)


def reset_failures(state: ResManState, agent: str) -> None:
    """Reset the count, after a success or a time without failures."""
    state.watch_to_change(agent).failures = 0
    if agent in state.flaky_agents:
        del state.flaky_agents[agent]
        state.view.set_flaky(agent, False)


def reset_old_failures(state: ResManState) -> None:
    """Reset the count of agents that have not failed for ``flaky_s``."""
    for agent in list(state.flaky_agents):
        if state.now_s - state.watches[agent].failed_s >= state.config.flaky_s:
            reset_failures(state, agent)
