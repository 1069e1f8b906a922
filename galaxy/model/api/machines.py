"""Operations on machines, which ResMan answers: agents, pools, tags and labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from galaxy.errors import UsageError
from galaxy.model.api.agents import AgentList
from galaxy.model.api.audit import ListAudit
from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.base import Struct, matches
from galaxy.model.messages.names import RESMAN
from galaxy.model.resources import NOTHING, Resources

HOSTS_MAX: Final = 5000
"""Hosts in one request."""
TAGS_MAX: Final = 32
"""Tags of one agent, and tags in one request."""
LABELS_MAX: Final = 32
"""Labels of one agent."""
POOLS_MAX: Final = 500
REGISTERED_MAX: Final = 5000
"""Agents that are registered and have not joined yet."""
REASON_MAX: Final = 300
"""Longest reason of an operator, in characters."""
VALUE_MAX: Final = 63
"""Longest value of a label, in characters."""

_HOST: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"
_VALUE: Final = r"^[A-Za-z0-9_./:+-]{1,63}$"
HostName = Annotated[str, Meta(pattern=_HOST)]
Hosts = Annotated[tuple[HostName, ...], Meta(min_length=1, max_length=HOSTS_MAX)]
MarkName = Annotated[str, Meta(pattern=_NAME)]
"""Name of a pool, a tag, or the key of a label."""
Marks = Annotated[tuple[MarkName, ...], Meta(max_length=TAGS_MAX)]
LabelValue = Annotated[str, Meta(pattern=_VALUE)]
ReasonText = Annotated[str, Meta(max_length=REASON_MAX)]

OF_MARK: Final = "letters, digits and `_`, then `.` and `-` as well; 63 characters at most"
_OF_VALUE: Final = f"letters, digits and `_./:+-`; {VALUE_MAX} characters at most"


class AgentsView(Struct, frozen=True, kw_only=True):
    """Agents that a request was about, by name; ``changed`` are those that were not so already."""

    agents: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class CordonAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Place nothing new on ``agents``."""

    op: ClassVar[str] = "galaxy.agent.cordon"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    reason: ReasonText = ""


class UncordonAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Place containers on ``agents`` again."""

    op: ClassVar[str] = "galaxy.agent.uncordon"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts


class AddAgent(Body[AgentsView], frozen=True, kw_only=True):
    """Register ``agent`` before it joins, with the pool, tags and labels that it is to have."""

    op: ClassVar[str] = "galaxy.agent.add"
    answered_by: ClassVar[str] = RESMAN
    agent: HostName
    pool: Annotated[str, Meta(pattern=f"^$|{_NAME}")] = ""
    tags: Marks = ()
    labels: Annotated[dict[MarkName, LabelValue], Meta(max_length=LABELS_MAX)] = {}


class RemoveAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Forget ``agents``. ``force``: also those that are alive or hold containers."""

    op: ClassVar[str] = "galaxy.agent.remove"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    force: bool = False


class LabelAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Set labels of ``agents``, and remove those in ``remove``."""

    op: ClassVar[str] = "galaxy.agent.label"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    labels: Annotated[dict[MarkName, LabelValue], Meta(max_length=LABELS_MAX)] = {}
    remove: Annotated[tuple[MarkName, ...], Meta(max_length=LABELS_MAX)] = ()


class ListMachines(PagedBody[AgentList], frozen=True, kw_only=True):
    """List every agent, or only ``agent``, from ResMan itself: AppMaster need not run."""

    op: ClassVar[str] = "galaxy.agent.machines"
    answered_by: ClassVar[str] = RESMAN
    agent: str = ""


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool: how many agents are in it, by state, and amounts of those that are not dead.

    ``registered`` counts agents that an operator added to it and that have not joined yet. ``created_s``
    is 0 for a pool that exists only because agents are in it.
    """

    pool: str
    agents: dict[str, int] = {}
    total: Resources = NOTHING
    assigned: Resources = NOTHING
    by: str = ""
    created_s: float = 0.0
    registered: int = 0


class PoolList(Page, frozen=True, kw_only=True):
    """Pools by name."""

    pools: tuple[PoolView, ...]


class ListPools(PagedBody[PoolList], frozen=True, kw_only=True):
    """List the pools."""

    op: ClassVar[str] = "galaxy.pool.list"
    answered_by: ClassVar[str] = RESMAN


class CreatePool(Body[PoolView], frozen=True, kw_only=True):
    """Create an empty pool."""

    op: ClassVar[str] = "galaxy.pool.create"
    answered_by: ClassVar[str] = RESMAN
    pool: MarkName


class RemovePool(Body[PoolView], frozen=True, kw_only=True):
    """Remove a pool without agents."""

    op: ClassVar[str] = "galaxy.pool.remove"
    answered_by: ClassVar[str] = RESMAN
    pool: MarkName


class MovePool(Body[AgentsView], frozen=True, kw_only=True):
    """Move ``agents`` to ``pool``."""

    op: ClassVar[str] = "galaxy.pool.move"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    pool: MarkName


class TagAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Give ``tags`` to ``agents``."""

    op: ClassVar[str] = "galaxy.tag.add"
    answered_by: ClassVar[str] = RESMAN
    tags: Annotated[tuple[MarkName, ...], Meta(min_length=1, max_length=TAGS_MAX)]
    agents: Hosts


class UntagAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Take ``tags`` from ``agents``."""

    op: ClassVar[str] = "galaxy.tag.remove"
    answered_by: ClassVar[str] = RESMAN
    tags: Annotated[tuple[MarkName, ...], Meta(min_length=1, max_length=TAGS_MAX)]
    agents: Hosts


class TagView(Struct, frozen=True, kw_only=True):
    """A tag, and the agents that have it."""

    tag: str
    agents: tuple[str, ...]


class TagList(Page, frozen=True, kw_only=True):
    """Tags by name."""

    tags: tuple[TagView, ...]


class ListTags(PagedBody[TagList], frozen=True, kw_only=True):
    """List the tags with their agents."""

    op: ClassVar[str] = "galaxy.tag.list"
    answered_by: ClassVar[str] = RESMAN


class ListMachineAudit(ListAudit, frozen=True, kw_only=True):
    """The same for what operators asked ResMan. Its records have serials of their own."""

    op: ClassVar[str] = "galaxy.audit.machines"
    answered_by: ClassVar[str] = RESMAN


def check_hosts(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of hosts, each once, in their order.

    Raises:
        UsageError: none is given, too many are, or one is not a name of a host.
    """
    hosts = tuple(dict.fromkeys(names))
    if not hosts:
        raise UsageError("no host is named", hint="name hosts, or give a file with --file")
    if len(hosts) > HOSTS_MAX:
        raise UsageError(
            f"{len(hosts):,} hosts are too many for one request",
            details=[f"{HOSTS_MAX:,} at most"],
            hint="split the list",
        )
    for host in hosts:
        if not matches(host, _HOST):
            details = ["letters and digits, then `.`, `_` and `-` as well; 63 characters at most"]
            raise UsageError(f'"{host[:80]}" is not the name of a host', details=details)
    return hosts


def check_marks(what: str, names: Iterable[str], limit: int = TAGS_MAX) -> tuple[str, ...]:
    """Return names of ``what``, such as ``tag``, each once, in their order.

    Raises:
        UsageError: too many are given, or one is not such a name.
    """
    marks = tuple(dict.fromkeys(names))
    if len(marks) > limit:
        raise UsageError(f"{len(marks)} {what}s are too many", details=[f"{limit} at most"])
    for mark in marks:
        if not matches(mark, _NAME):
            raise UsageError(f'"{mark[:80]}" is not the name of a {what}', details=[OF_MARK])
    return marks


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return ``labels``.

    Raises:
        UsageError: there are too many, or a key or a value is malformed.
    """
    check_marks("label", labels, LABELS_MAX)
    for key, value in labels.items():
        if not matches(value, _VALUE):
            raise UsageError(f'"{value[:80]}" is not a value of label {key}', details=[_OF_VALUE])
    return labels


def check_reason(reason: str) -> str:
    """Return ``reason``.

    Raises:
        UsageError: it is too long.
    """
    if len(reason) > REASON_MAX:
        raise UsageError(f"the reason has {len(reason)} characters", details=[f"{REASON_MAX} at most"])
    return reason
