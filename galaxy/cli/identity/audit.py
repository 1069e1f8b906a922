"""``galaxy audit``: who did what."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Final

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.cli.times import parse_since
from galaxy.client import Galaxy
from galaxy.errors import Unreachable, UsageError
from galaxy.model.api.audit import RECORDS_MAX
from galaxy.model.stored.user import AuditRecord

FOLLOW_S: Final = 1.0
NUMBER_MAX: Final = 100_000


@click.command(
    cls=Command,
    examples="""\
  galaxy audit                                  the newest 100 records
  galaxy audit --user ann --since 2h            what ann did in the last two hours
  galaxy audit --target web --op job.update     each update of the job web
  galaxy audit -f                               continue with new records
  galaxy audit --limit 5000 -o json
""",
)
@click.option("--user", default="", metavar="USER", help="Only what this user did.")
@click.option(
    "--op",
    "operation",
    default="",
    metavar="OPERATION",
    help="Only this: job.submit, or job for all of them.",
)
@click.option(
    "--target", "about", default="", metavar="NAME", help="Only what was done to this job, user or secret."
)
@click.option("--since", metavar="TIME", help="Only what is newer: 10m, 09:15, 2026-11-30T09:15.")
@click.option(
    "-n", "--limit", "--number", "number", type=click.IntRange(1, NUMBER_MAX), default=100, show_default=True,
    help="Number of newest records.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Continue with new records, until Ctrl-C.")
@output_options
@cluster_options
def audit(
    target: Target, output: Output, user: str, operation: str, about: str, since: str | None, number: int,
    follow: bool,
) -> None:  # fmt: skip
    """Show who did what, when, and the result; for operators."""
    if follow and not output.for_people:
        raise UsageError("--follow prints lines for people", hint="leave out -o, or --follow")
    wanted = {
        "user": user,
        "operation": operation,
        "target": about,
        "since_s": parse_since(since) if since else 0.0,
    }
    with target.open() as galaxy:
        if follow:
            _follow(galaxy, number, wanted)
        records = newest(galaxy, number, wanted)
    if output.print_data(records, [str(record.serial) for record in records]):
        return
    if not records:
        print_err("no such records" if any(wanted.values()) else "no records")
        return
    output.print_table(["WHEN", "WHO", "WHAT", "TARGET", "RESULT"], [_row(record) for record in records])


def newest(galaxy: Galaxy, number: int, wanted: dict[str, Any]) -> list[AuditRecord]:
    """Return the newest ``number`` records that match, oldest first; several requests fetch many."""
    records: list[AuditRecord] = []
    while len(records) < number:
        limit = min(number - len(records), RECORDS_MAX)
        page = galaxy.audit(before=records[0].serial if records else 0, limit=limit, **wanted).records
        records = [*page, *records]
        if len(page) < limit or page[0].serial <= 1:
            break
    return records


def _follow(galaxy: Galaxy, number: int, wanted: dict[str, Any]) -> None:
    """Print records as they come, until interrupted; keep trying while the cluster does not answer."""
    last = galaxy.audit(limit=1).last
    _print(record for record in newest(galaxy, number, wanted) if record.serial <= last)
    while True:
        try:
            page = galaxy.audit(after=last, limit=RECORDS_MAX, **wanted)
        except Unreachable as error:
            print_err(f"galaxy: {error.message}; still trying")
            time.sleep(FOLLOW_S)
            continue
        _print(page.records)
        last = page.next or page.last
        if not page.records:
            time.sleep(FOLLOW_S)


def _row(record: AuditRecord) -> list[str]:
    result = record.result if record.result == "ok" else f"{record.result}: {record.message}"
    return [
        format_time(record.at_s), record.user, record.op.removeprefix("galaxy."), record.target, result
    ]  # fmt: skip


def _print(records: Iterable[AuditRecord]) -> None:
    for record in records:
        print_out("  ".join(_row(record)))
    sys.stdout.flush()
