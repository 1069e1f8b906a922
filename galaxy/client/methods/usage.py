"""Usage and bills: what jobs held and used, day by day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from galaxy.accounting.bills import BillLine, bill, parse_prices
from galaxy.accounting.reports import BY, UsageTotal, in_range, totals
from galaxy.client import arguments
from galaxy.client.methods.asking import Asking
from galaxy.errors import UsageError
from galaxy.model.api.agents import ListAgents
from galaxy.model.api.top import ShowTop, TopAgent, TopOrder, TopSubject, TopView
from galaxy.model.api.usage import ListUsage
from galaxy.model.api.views import AgentView
from galaxy.model.stored.account import DayUsage
from galaxy.suggest import did_you_mean

_EPOCH: Final = date(1970, 1, 1)
EARLIER_TEXT: Final = "earlier"


class UsageMethods(Asking):
    """Usage and bills. Users ask about themselves, operators about everybody."""

    def usage(
        self, by: str = "job", *, user: str = "", first: date | None = None, last: date | None = None
    ) -> list[UsageTotal]:
        """Return what was assigned and used by ``user``, ``job``, ``pool`` or ``day``, the most first.

        From day ``first`` to ``last``, both included, in UTC; without them, all that is kept.

        Raises:
            UsageError: ``by`` is something else. Refused: ``user`` is another user.
        """
        _check_by(by)
        asked = ListUsage(user=user, first=day_number(first), last=day_number(last), limit=self.page_limit)
        return totals(self._day_rows(asked), by, day_text)

    def bill(
        self,
        prices: Mapping[str, Any],
        by: str = "user",
        *,
        user: str = "",
        first: date | None = None,
        last: date | None = None,
    ) -> list[BillLine]:
        """Return what was assigned times ``prices``, a table as ``galaxy bill`` reads it, the dearest first.

        Raises:
            UsageError: ``prices`` or ``by`` is wrong. Refused: ``user`` is another user.
        """
        _check_by(by)
        table = parse_prices(dict(prices))
        asked = ListUsage(user=user, first=day_number(first), last=day_number(last), limit=self.page_limit)
        return bill(self._day_rows(asked), by, table, day_text)

    def top(
        self, subject: str = "pods", *, order: str = "cpu", limit: int = 100, skip: int = 0, user: str = ""
    ) -> TopView:
        """Return the ``jobs`` or ``pods`` that use most now, by ``cpu`` or ``memory``, or by ``name``.

        What they use is as agents last measured it, up to twenty seconds ago.
        """
        return self._ask(
            ShowTop(
                subject=arguments.choice(subject, TopSubject, "subject"),
                order=arguments.choice(order, TopOrder, "order"),
                limit=limit,
                skip=skip,
                user=user,
            )
        )

    def top_agents(self, order: str = "cpu") -> list[TopAgent]:
        """Return what every host uses now, the most first, by ``cpu`` or ``memory``, or by ``name``."""
        by = arguments.choice(order, TopOrder, "order")
        rows: list[AgentView] = self._all(ListAgents(), lambda page: page.agents)
        return sorted(map(_top_agent, rows), key=lambda row: _top_key(row, by))

    def _day_rows(self, asked: ListUsage) -> list[DayUsage]:
        """Return the rows of the days, with what is held until now."""
        rows: list[DayUsage] = []
        while True:
            page = self._ask(asked)
            rows += in_range(page.rows, page.open, page.now_s, first=asked.first, last=asked.last)
            if not page.next:
                return rows
            asked = msgspec.structs.replace(asked, after=page.next)


def _top_agent(agent: AgentView) -> TopAgent:
    usage = agent.usage
    return TopAgent(
        name=agent.agent,
        state=agent.state.value,
        cpu_milli=usage.cpu_milli if usage else 0,
        memory_bytes=usage.memory_bytes if usage else 0,
        total_cpu_milli=agent.info.cpu_milli,
        total_memory_bytes=agent.info.memory_bytes,
        load1=usage.load1 if usage else 0.0,
        containers=len(agent.containers),
        at_s=usage.at_s if usage else 0.0,
    )


def _top_key(row: TopAgent, order: TopOrder) -> tuple[int, str]:
    if not row.is_measured:
        return 0, row.name
    used = {TopOrder.CPU: row.cpu_milli, TopOrder.MEMORY: row.memory_bytes}
    return -used.get(order, 0), row.name


def day_number(day: date | None) -> int:
    """Return the number of a day since 1970-01-01; 0 for None."""
    return 0 if day is None else max(1, (day - _EPOCH).days)


def day_text(number: int) -> str:
    """Write the number of a day like 2026-11-30; ``earlier`` is the sum of days that are not kept apart."""
    return (_EPOCH + timedelta(days=number)).isoformat() if number else EARLIER_TEXT


def _check_by(by: str) -> None:
    if by not in BY:
        raise UsageError(
            f'usage is not summed up by "{by}"', details=did_you_mean(by, BY), hint=", ".join(BY)
        )
