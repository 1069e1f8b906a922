"""What ``galaxy usage`` and ``galaxy bill`` share: their options, days, and output as CSV."""

from __future__ import annotations

import csv
import functools
import io
import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from galaxy.accounting.reports import BY
from galaxy.cli.output import FORMATS, Output, one_line, print_out

F = TypeVar("F", bound=Callable[..., Any])

CSV: Final = "csv"
DAYS_MAX: Final = 36_500


class DayParam(click.ParamType[date]):
    """A day in UTC: 2026-11-30, ``today``, ``yesterday``, ``7d`` ago, or 2026-11 for all of that month."""

    name = "DAY"

    def __init__(self, *, last: bool) -> None:
        """``last``: of a month take the last day, and not the first."""
        self._last = last

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        day = parse_day(str(value), last=self._last)
        if day is None:
            self.fail(
                f"{value!r} is not a day; write it like 2026-11-30, 2026-11, yesterday or 7d", param, ctx
            )
        return day


def parse_day(text: str, *, last: bool = False) -> date | None:
    """Read a day in UTC; of a month the first day, or the ``last``. None if it is not one."""
    today = datetime.now(UTC).date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    if text in named:
        return named[text]
    if (ago := re.fullmatch(r"(\d{1,5})d", text)) and int(ago[1]) <= DAYS_MAX:
        return today - timedelta(days=int(ago[1]))
    try:
        if re.fullmatch(r"\d{4}-\d{2}", text):
            year, month = int(text[:4]), int(text[5:])
            return date(year, month, monthrange(year, month)[1] if last else 1)
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        return None


def report_options(by: str) -> Callable[[F], F]:
    """Add --by, --from, --to, --owner, -o and --no-headers; ``by`` is the default of --by."""

    def add(function: F) -> F:
        @click.option(
            "--by", type=click.Choice(list(BY)), default=by, show_default=True, help="Sum up by this."
        )
        @click.option(
            "--from", "first", type=DayParam(last=False), help="First day, UTC: 2026-11-01, 2026-11, 7d."
        )
        @click.option("--to", "last", type=DayParam(last=True), help="Last day, which is included.")
        @click.option(
            "--owner", "--user", "owner", default="", metavar="USER", help="Only the jobs of this user."
        )
        @click.option(
            "-o", "--output", "form", type=click.Choice((*FORMATS, CSV)), default="table",
            help="Output format.",
        )  # fmt: skip
        @click.option("--no-headers", is_flag=True, help="Omit the line of headers.")
        @functools.wraps(function)
        def command(
            *args: Any, first: date | None, last: date | None, form: str, no_headers: bool, **kwargs: Any
        ) -> Any:
            if first and last and last < first:
                raise click.UsageError(f"--to {last} is before --from {first}")
            output = Output(form, headers=not no_headers)
            return function(*args, first=first, last=last, output=output, **kwargs)

        return command  # type: ignore[return-value]

    return add


def print_csv(titles: Sequence[str], rows: Sequence[Sequence[str | float]], *, headers: bool) -> None:
    """Print rows as CSV (RFC 4180). Text that looks like a formula gets an apostrophe in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if headers:
        writer.writerow(titles)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    print_out(text.getvalue().rstrip("\n"), raw=True)


def _cell(value: str | float) -> str | float:
    """Return a cell that neither a terminal nor a spreadsheet obeys: names come from users."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
