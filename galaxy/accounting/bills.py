"""Bills: what was assigned, times the prices of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from galaxy.accounting.reports import BY
from galaxy.errors import UsageError
from galaxy.model.base import Struct
from galaxy.model.resource_seconds import ResourceSeconds
from galaxy.model.resources import RESOURCES, Resource
from galaxy.model.stored.account import DayUsage
from galaxy.suggest import nearest

HOUR_S: Final = 3600.0
PRICE_MAX: Final = 1e9
PROBLEMS_MAX: Final = 20
NAMES: Final = tuple(resource.name for resource in RESOURCES)
EXAMPLE: Final = "currency: EUR, cpu: 0.02, memory: 0.005, pools: {gpu: {cpu: 0.05}}"


class Prices(Struct, frozen=True, kw_only=True):
    """Prices for one unit of a resource for an hour: a core, a GiB, a container.

    ``pools`` has the prices of pools where they differ. A resource without a price costs nothing.
    """

    currency: str = ""
    rates: dict[str, float] = {}
    pools: dict[str, dict[str, float]] = {}

    def rate(self, resource: Resource, pool: str) -> float:
        """Return the price of a unit of ``resource`` in ``pool`` for an hour."""
        return self.pools.get(pool, {}).get(resource.name, self.rates.get(resource.name, 0.0))


class BillLine(Struct, frozen=True, kw_only=True):
    """What one user, job, pool or day costs: by resource, and ``total``."""

    user: str = ""
    job: str = ""
    pool: str = ""
    day: str = ""
    costs: dict[str, float] = {}
    total: float = 0.0
    currency: str = ""

    @property
    def name(self) -> str:
        """The one of user, job, pool and day that it is about."""
        return self.job or self.user or self.pool or self.day


def bill(rows: Iterable[DayUsage], by: str, prices: Prices, day_text: Callable[[int], str]) -> list[BillLine]:
    """Return a line for each of ``BY[by]``, the dearest first; days in their order."""
    sums: dict[tuple[int, str, str, str], dict[str, float]] = {}
    for row in rows:
        short = BY[by](row)
        costs = sums.setdefault((short.day, short.user, short.job, short.pool), dict.fromkeys(NAMES, 0.0))
        for resource in RESOURCES:
            costs[resource.name] += hours(row.assigned, resource) * prices.rate(resource, row.pool)
    lines = [
        BillLine(
            user=user,
            job=job,
            pool=pool,
            day=day_text(day) if by == "day" else "",
            costs=costs,
            total=sum(costs.values()),
            currency=prices.currency,
        )
        for (day, user, job, pool), costs in sorted(sums.items())
    ]
    return lines if by == "day" else sorted(lines, key=lambda line: -line.total)


def hours(amounts: ResourceSeconds, resource: Resource) -> float:
    """Return an amount in the units that people count in, times hours: core-hours, GiB-hours."""
    return amounts.of(resource) / resource.whole / HOUR_S


def parse_prices(tree: Any) -> Prices:
    """Read a table of prices as a file has it.

    Raises:
        UsageError: it is wrong; names each problem.
    """
    problems: list[str] = []
    fields = dict(tree) if isinstance(tree, dict) else {}
    if not fields:
        problems.append("it has no fields")
    currency = fields.pop("currency", "")
    if not isinstance(currency, str) or len(currency) > 10:
        problems.append("currency: a name of at most 10 letters, like EUR")
    pools = fields.pop("pools", {})
    if not isinstance(pools, dict):
        problems.append("pools: prices by the name of a pool")
        pools = {}
    rates = _rates(fields, "", problems)
    of_pools = {str(pool): _rates(prices, f"pools.{pool}.", problems) for pool, prices in pools.items()}
    if problems:
        raise UsageError(
            "this is not a table of prices", details=problems[:PROBLEMS_MAX], hint=f"write it like {EXAMPLE}"
        )
    return Prices(currency=currency, rates=rates, pools=of_pools)


def _rates(tree: Any, where: str, problems: list[str]) -> dict[str, float]:
    if not isinstance(tree, dict):
        problems.append(f"{where.rstrip('.')}: prices by the name of a resource")
        return {}
    rates = {}
    for name, price in tree.items():
        if name not in NAMES:
            guess = nearest(str(name), NAMES)
            meant = f"did you mean {guess}?" if guess else f"known: {', '.join(NAMES)}"
            problems.append(f"{where}{name}: no such resource; {meant}")
        elif isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= PRICE_MAX:
            problems.append(f"{where}{name}: a price for an hour, from 0 to {PRICE_MAX:g}")
        else:
            rates[name] = float(price)
    return rates
