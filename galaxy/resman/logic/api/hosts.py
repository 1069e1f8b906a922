"""Finding the agents that a request names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from galaxy.errors import NotFound
from galaxy.model.api.machines import AgentsView
from galaxy.model.stored.agent import AgentRecord
from galaxy.resman.logic.state.state import ResManState
from galaxy.suggest import CUTOFF_SHORT, did_you_mean

SHOWN_MAX: Final = 5


def records_of(state: ResManState, agents: Iterable[str]) -> list[AgentRecord]:
    """Return the records of ``agents``, each once.

    Raises:
        NotFound: one of them is not known; then nothing is to be changed of the others either.
    """
    wanted = dict.fromkeys(agents)
    missing = [name for name in wanted if name not in state.agents]
    if missing:
        raise no_agent(state, missing)
    return [state.agents[name] for name in wanted]


def no_agent(state: ResManState, missing: Sequence[str]) -> NotFound:
    """Return the error for agents that are not known."""
    details = []
    if len(missing) == 1:
        details = did_you_mean(missing[0], state.agents, cutoff=CUTOFF_SHORT)
        message = f'there is no agent "{missing[0]}"'
    else:
        message = f"there are no agents {some(missing)}"
    if any(name in state.registrations for name in missing):
        details.append(
            "registered, and not joined yet: " + some([n for n in missing if n in state.registrations])
        )
    return NotFound(message, details=[*details, "nothing was changed"], hint="galaxy agent list")


def some(names: Sequence[str]) -> str:
    """Return the first of ``names``, and how many more there are."""
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def change_each(
    state: ResManState,
    records: Iterable[AgentRecord],
    changed: Iterable[AgentRecord],
    kind: str,
    text: str = "",
) -> AgentsView:
    """Store those of ``changed`` that differ from ``records``; trace each as an event ``kind``."""
    names, different = [], []
    for old, new in zip(records, changed, strict=True):
        names.append(old.agent)
        if new != old:
            different.append(old.agent)
            state.change_agent(new)
            state.record(kind, old.agent, text)
    return AgentsView(agents=tuple(names), changed=tuple(different))


def named(agents: Iterable[str], before: str = "") -> str:
    """Return agents as the audit trail names them."""
    return " ".join((*([before] if before else []), *agents))
