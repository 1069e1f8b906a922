"""``galaxy bill``: usage times prices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import click

from galaxy.accounting.bills import NAMES, BillLine, parse_prices
from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options
from galaxy.cli.output import Output, print_err
from galaxy.cli.usage.reports import CSV, print_csv, report_options
from galaxy.client.source.job_file import read


@click.command(
    cls=Command,
    examples="""\
  galaxy bill --prices prices.yaml --from 2026-11 --to 2026-11
  galaxy bill --prices prices.yaml --by job --owner ann -o csv

prices.yaml, for one core, GiB or container for an hour:
  currency: EUR
  cpu: 0.02
  memory: 0.005
  pools:
    gpu: {cpu: 0.05}
""",
)
@click.option(
    "--prices", required=True, metavar="FILE", type=click.Path(allow_dash=True),
    help="Prices per hour: YAML, JSON or TOML.",
)  # fmt: skip
@report_options("user")
@cluster_options
def bill(
    target: Target, output: Output, prices: str, by: str, first: date | None, last: date | None, owner: str
) -> None:
    """Show what jobs cost: what they held on hosts, times the prices in FILE."""
    table = read(prices, what="price file").tree
    parse_prices(table)
    with target.open() as galaxy:
        lines = galaxy.bill(table, by, user=owner, first=first, last=last)
    if output.form == CSV:
        rows: list[list[str | float]] = []
        for line in lines:
            costs = [round(cost, 6) for cost in (*line.costs.values(), line.total)]
            rows.append([_name(line, by), *costs, line.currency])
        print_csv([by, *NAMES, "total", "currency"], rows, headers=output.headers)
        return
    if output.print_data(lines, [line.name for line in lines]):
        return
    if not lines:
        print_err("nothing was used in these days")
        return
    output.print_table(*bill_rows(lines, by))


def bill_rows(lines: Sequence[BillLine], by: str) -> tuple[list[str], list[list[str]]]:
    """Return the table, with a line for the sum. Resources that cost nothing are left out."""
    shown = [name for name in NAMES if any(line.costs[name] for line in lines)]
    rows = [[_name(line, by), *(f"{line.costs[name]:.2f}" for name in shown), f"{line.total:.2f}"]
            for line in lines]  # fmt: skip
    sums = [sum(line.costs[name] for line in lines) for name in shown]
    rows.append(["all", *(f"{cost:.2f}" for cost in sums), f"{sum(line.total for line in lines):.2f}"])
    currency = lines[0].currency
    return [by.upper(), *(name.upper() for name in shown), f"TOTAL {currency}".strip()], rows


def _name(line: BillLine, by: str) -> str:
    return str(getattr(line, by)) or ("other jobs" if by == "job" else "-")
