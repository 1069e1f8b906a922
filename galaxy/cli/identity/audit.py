"""``galaxy audit``: who did what."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.cli.times import parse_since
from galaxy.client import Galaxy
from galaxy.errors import GalaxyError, Refused, Unreachable, UsageError
from galaxy.model.api.audit import RECORDS_MAX, AuditList
from galaxy.model.messages.names import APPMASTER
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
  galaxy audit --op agent --target h1           what operators did with the host h1
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
    "--target",
    "about",
    default="",
    metavar="NAME",
    help="Only what was done to this job, user, secret or host.",
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
    """Show who did what, when, and the result; for operators.

    AppMaster keeps one trail, ResMan another: of what operators asked it about machines. Both are shown,
    by time; while one of the leaders does not answer, the other's.
    """
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
    if output.print_data(records, [_name(record) for record in records]):
        return
    if not records:
        print_err("no such records" if any(wanted.values()) else "no records")
        return
    output.print_table(["WHEN", "WHO", "WHAT", "TARGET", "RESULT"], [_row(record) for record in records])


def newest(galaxy: Galaxy, number: int, wanted: dict[str, Any]) -> list[AuditRecord]:
    """Return the newest ``number`` records of both leaders that match, oldest first.

    A leader that does not answer is named on stderr, and its records are left out.

    Raises:
        GalaxyError: neither answers.
    """
    records: list[AuditRecord] = []
    problems: list[GalaxyError] = []
    for ask in _trails(galaxy):
        try:
            records += _newest_of(ask, number, wanted)
        except GalaxyError as error:
            if isinstance(error, UsageError):
                raise
            problems.append(error)
    if len(problems) == len(_trails(galaxy)):
        raise problems[0]
    for problem in problems:
        print_err(f"galaxy: warning: records are missing: {problem.message}")
    return sorted(records, key=lambda record: (record.at_s, record.leader, record.serial))[-number:]


def _trails(galaxy: Galaxy) -> tuple[Callable[..., AuditList], ...]:
    return (
        lambda **wanted: galaxy.audit(**wanted),
        lambda **wanted: galaxy.machine_audit(**wanted),
    )


def _newest_of(ask: Callable[..., AuditList], number: int, wanted: dict[str, Any]) -> list[AuditRecord]:
    """Return the newest ``number`` records of one leader; several requests fetch many."""
    records: list[AuditRecord] = []
    while len(records) < number:
        limit = min(number - len(records), RECORDS_MAX)
        page = ask(before=records[0].serial if records else 0, limit=limit, **wanted).records
        records = [*page, *records]
        if len(page) < limit or page[0].serial <= 1:
            break
    return records


def _follow(galaxy: Galaxy, number: int, wanted: dict[str, Any]) -> None:
    """Print records as they come, until interrupted; keep trying while a leader does not answer."""
    trails = _trails(galaxy)
    last: list[int | None] = [None] * len(trails)
    first = True
    while True:
        found: list[AuditRecord] = []
        for at, ask in enumerate(trails):
            try:
                found += _new_of(ask, at, last, number, wanted)
            except (Unreachable, Refused) as error:
                print_err(f"galaxy: {error.message}; still trying")
        found.sort(key=lambda record: (record.at_s, record.leader, record.serial))
        _print(found[-number:] if first else found)
        first = False
        if not found:
            time.sleep(FOLLOW_S)


def _new_of(
    ask: Callable[..., AuditList], at: int, last: list[int | None], number: int, wanted: dict[str, Any]
) -> list[AuditRecord]:
    """Return the records of trail ``at`` after ``last``, which becomes the newest; at first the newest."""
    after = last[at]
    if after is None:
        newest_serial = ask(limit=1).last
        last[at] = newest_serial
        return [record for record in _newest_of(ask, number, wanted) if record.serial <= newest_serial]
    if after == 0:
        page = ask(limit=RECORDS_MAX, **wanted)
        last[at] = page.last
    else:
        page = ask(after=after, limit=RECORDS_MAX, **wanted)
        last[at] = page.next or page.last
    return list(page.records)


def _name(record: AuditRecord) -> str:
    return str(record.serial) if record.leader == APPMASTER else f"{record.leader}:{record.serial}"


def _row(record: AuditRecord) -> list[str]:
    result = record.result if record.result == "ok" else f"{record.result}: {record.message}"
    return [
        format_time(record.at_s), record.user, record.op.removeprefix("galaxy."), record.target, result
    ]  # fmt: skip


def _print(records: Iterable[AuditRecord]) -> None:
    for record in records:
        print_out("  ".join(_row(record)))
    sys.stdout.flush()
