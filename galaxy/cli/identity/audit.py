"""``galaxy audit``: who did what."""

from __future__ import annotations

import time
from typing import Final

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.client import Galaxy
from galaxy.errors import Unreachable
from galaxy.model.stored.user import AuditRecord

FOLLOW_S: Final = 1.0
RECORDS_MAX: Final = 1000
"""Limit on the records of one request."""


@click.command(cls=Command, examples="  galaxy audit\n  galaxy audit -f\n  galaxy audit -n 1000 -o json\n")
@click.option(
    "-n", "--number", type=click.IntRange(1, RECORDS_MAX), default=100, show_default=True,
    help="Number of newest records.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Continue with new records, until Ctrl-C.")
@output_options
@cluster_options
def audit(target: Target, output: Output, number: int, follow: bool) -> None:
    """Show who did what, when, and the result; for operators."""
    with target.open() as galaxy:
        if follow:
            _follow(galaxy, number)
        records = galaxy.audit(limit=number).records
    if not output.print_data(list(records), [str(record.serial) for record in records]):
        output.print_table(["WHEN", "WHO", "WHAT", "TARGET", "RESULT"], [_row(record) for record in records])


def _follow(galaxy: Galaxy, number: int) -> None:
    """Print records as they come, until interrupted; keep trying while the cluster does not answer."""
    newest = galaxy.audit(limit=number)
    last = newest.last
    _print(newest.records)
    while True:
        try:
            page = galaxy.audit(after=last, limit=RECORDS_MAX) if last else galaxy.audit(limit=number)
        except Unreachable as error:
            print_err(f"galaxy: {error.message}; still trying")
            time.sleep(FOLLOW_S)
            continue
        _print(page.records)
        if page.records:
            last = page.records[-1].serial
        else:
            time.sleep(FOLLOW_S)


def _row(record: AuditRecord) -> list[str]:
    result = record.result if record.result == "ok" else f"{record.result}: {record.message}"
    return [
        format_time(record.at_s), record.user, record.op.removeprefix("galaxy."), record.target, result
    ]  # fmt: skip


def _print(records: tuple[AuditRecord, ...]) -> None:
    for record in records:
        print_out("  ".join(_row(record)))
