"""``galaxy usage``: what jobs asked for and used, over days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import click

from galaxy.accounting.bills import hours
from galaxy.accounting.reports import UsageTotal
from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options
from galaxy.cli.output import Output, print_err
from galaxy.cli.usage.reports import CSV, print_csv, report_options
from galaxy.model.resources import ASKED, RESOURCES, Resource
from galaxy.units import format_bytes, format_cpu

MEASURED: Final = ("cpu_milli", "memory_bytes")
"""Fields of the resources whose use agents measure."""


@click.command(
    cls=Command,
    examples="""\
  galaxy usage                                  your jobs, the largest first
  galaxy usage --by day --from 7d               each of the last seven days
  galaxy usage --by user --from 2026-11 --to 2026-11 -o csv
  galaxy usage --owner ann                      the jobs of ann, for operators
""",
)
@report_options("job")
@cluster_options
def usage(target: Target, output: Output, by: str, first: date | None, last: date | None, owner: str) -> None:
    """Show what jobs held and what they used of it, in core-hours and GiB-hours, by day in UTC.

    ASKED is what containers asked for while they had a place on a host. USED is what agents measured; it
    is up to two minutes old. --by job says what a job could ask less of.
    """
    with target.open() as galaxy:
        lines = galaxy.usage(by, user=owner, first=first, last=last)
    if output.form == CSV:
        print_csv(*csv_rows(lines, by), headers=output.headers)
        return
    if output.print_data(lines, [line.name for line in lines]):
        return
    if not lines:
        print_err("nothing was used in these days")
        return
    output.print_table(*usage_rows(lines, by, wide=output.wide))


def usage_rows(lines: Sequence[UsageTotal], by: str, *, wide: bool) -> tuple[list[str], list[list[str]]]:
    """Return the table: what was asked and used of each resource."""
    shown = [resource for resource in ASKED if wide or not resource.wide]
    titles = [by.upper(), *(["USER"] if by == "job" else [])]
    for resource in shown:
        titles.append(f"{resource.name.upper()} {resource.whole_name.upper()}-H".strip())
        titles += ["USED", "%"] if resource.field in MEASURED else []
    advises = any(advice_text(line) for line in lines)
    rows = []
    for line in lines:
        row = [_name(line, by), *([line.user or "-"] if by == "job" else [])]
        for resource in shown:
            row.append(hours_text(hours(line.assigned, resource)))
            if resource.field in MEASURED:
                row += [hours_text(hours(line.used, resource)), share_text(line, resource)]
        rows.append([*row, advice_text(line)] if advises else row)
    return [*titles, "ADVICE"] if advises else titles, rows


def share_text(line: UsageTotal, resource: Resource) -> str:
    """Return how much of what was asked was used while it was measured, in percent."""
    held_s, measured_s = line.assigned.containers_s, line.used.containers_s
    asked = line.assigned.of(resource) * min(1.0, measured_s / held_s) if held_s else 0.0
    return f"{100 * line.used.of(resource) / asked:.0f}" if asked else "-"


def hours_text(amount: float) -> str:
    """Write an amount of hours: small ones with more digits."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def advice_text(line: UsageTotal) -> str:
    """Return what a container of a job could ask less of, by its highest use; empty if nothing."""
    parts = []
    if line.enough_cpu_milli:
        parts.append(f"cpu {format_cpu(line.enough_cpu_milli)} instead of {format_cpu(line.asked_cpu_milli)}")
    if line.enough_memory_bytes:
        enough, asked = format_bytes(line.enough_memory_bytes), format_bytes(line.asked_memory_bytes)
        parts.append(f"memory {enough} instead of {asked}")
    return "could ask " + ", ".join(parts) if parts else ""


def csv_rows(lines: Sequence[UsageTotal], by: str) -> tuple[list[str], list[list[str | float]]]:
    """Return titles and rows for CSV: amounts in whole units times hours."""
    titles = [by, *(["user"] if by == "job" else [])]
    for resource in RESOURCES:
        unit = resource.whole_name.lower()
        titles.append("_".join(filter(None, (resource.name, "asked", unit, "h"))))
        if resource.field in MEASURED:
            titles.append("_".join(filter(None, (resource.name, "used", unit, "h"))))
    rows: list[list[str | float]] = []
    for line in lines:
        row: list[str | float] = [_name(line, by), *([line.user] if by == "job" else [])]
        for resource in RESOURCES:
            row.append(round(hours(line.assigned, resource), 6))
            if resource.field in MEASURED:
                row.append(round(hours(line.used, resource), 6))
        rows.append(row)
    return titles, rows


def _name(line: UsageTotal, by: str) -> str:
    return str(getattr(line, by)) or ("other jobs" if by == "job" else "-")
