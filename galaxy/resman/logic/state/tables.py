"""ResMan's durable tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

from galaxy.model.messages.container import Reason
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.messages.liveness import LivenessTerms
from galaxy.model.stored.account import EARLIER, OTHER_JOBS, Account, AgentMeters, DayUsage
from galaxy.model.stored.agent import AgentRecord, Mark, PoolRecord, Registration
from galaxy.model.stored.cluster import AgentLoad, AgentSums
from galaxy.model.stored.container import Container, EndedGroup, Group
from galaxy.model.stored.table import Table
from galaxy.operations.config import RequestConfig
from galaxy.operations.records import RequestRecords
from galaxy.resman.logic.state.container_index import INDEXES, SUMS
from galaxy.resman.logic.state.group_index import GROUP_INDEXES

SAFE_MODE: Final = "safe-mode"
"""Key of the row that table ``cluster`` has while ResMan is in safe mode."""

IDENTITY: Final = "all"
"""Key of the one row of table ``identity``: the last order that was applied."""


def _day(row: DayUsage) -> Hashable | None:
    return None if row.day == EARLIER else row.day


def _day_with_job(row: DayUsage) -> Hashable | None:
    return None if row.job == OTHER_JOBS else _day(row)


class ResManTables:
    """The tables that ResMan commits.

    ``containers`` has the current incarnation of each slot under the slot's id, and each earlier
    incarnation that its agent must still destroy under a key of its own (``old_incarnation_key``).
    """

    def __init__(self, config: RequestConfig) -> None:
        self.groups: Table[Group] = Table("groups", Group, multi_indexes=GROUP_INDEXES)
        self.containers: Table[Container] = Table("containers", Container, INDEXES, SUMS)
        self.agents: Table[AgentRecord] = Table("agents", AgentRecord)
        self.cluster: Table[Reason] = Table("cluster", Reason)
        self.loads: Table[AgentLoad] = Table("loads", AgentLoad)
        self.sums: Table[AgentSums] = Table("sums", AgentSums)
        self.accounts: Table[Account] = Table("accounts", Account)
        self.usage: Table[DayUsage] = Table("usage", DayUsage, {"day": _day, "jobs": _day_with_job})
        self.meters: Table[AgentMeters] = Table("meters", AgentMeters)
        self.ended: Table[EndedGroup] = Table("ended", EndedGroup)
        self.identity: Table[IdentityOrder] = Table("identity", IdentityOrder)
        self.liveness: Table[LivenessTerms] = Table("liveness", LivenessTerms)
        self.registrations: Table[Registration] = Table("registrations", Registration)
        self.pools: Table[PoolRecord] = Table("pools", PoolRecord)
        self.manual: Table[Mark] = Table("manual", Mark)
        """Has a row ``SAFE_MODE`` from when an operator enters safe mode until an operator leaves it."""
        self.requests = RequestRecords(config)
        """Answers to operators' requests and the audit trail: two more tables."""

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        """Every table by name, in the order in which changes are committed."""
        every: tuple[Table[Any], ...] = (
            self.liveness, self.identity, self.groups, self.ended, self.containers, self.agents, self.cluster,
            self.loads, self.sums, self.registrations, self.pools, self.manual, self.accounts, self.usage,
            self.meters,            self.requests.answers, self.requests.audit,
        )  # fmt: skip
        return {table.name: table for table in every}
