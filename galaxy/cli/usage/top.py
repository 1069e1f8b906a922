"""``galaxy top``: what hosts, jobs and pods use now, refreshed until it is ended."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.options import Duration, Target, cluster_options, output_options
from galaxy.cli.output import Output, print_err
from galaxy.cli.usage.live import Frame, show_live
from galaxy.client import Galaxy
from galaxy.model.api.top import ROWS_MAX, TopAgent, TopOrder, TopRow
from galaxy.units import format_bytes, format_cpu

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES: Final = """\
  galaxy top pods                    what uses most CPU, refreshed; q ends it
  galaxy top jobs --sort memory
  galaxy top agents --once           print it once
  galaxy top pods -o json --limit 1000
"""


ORDERS: Final = [order.value for order in TopOrder]


class Choice(NamedTuple):
    """What the options ask for."""

    order: str
    limit: int
    skip: int
    owner: str


@click.group(cls=LazyGroup, examples=EXAMPLES)
def top() -> None:
    """Show what agents, jobs or pods use now, of what they asked for or have."""


def top_options(function: F) -> F:
    """Add the options of every subject; the command gets ``choice``, ``once`` and ``every``."""

    @click.option(
        "--sort", "order", type=click.Choice(ORDERS), default="cpu", show_default=True,
        help="What comes first.",
    )  # fmt: skip
    @click.option(
        "-n", "--limit", type=click.IntRange(1, ROWS_MAX), default=None,
        help="Number of rows; without it what fits on the terminal, else 20.",
    )  # fmt: skip
    @click.option("--skip", type=click.IntRange(0), default=0, help="Leave out so many of the first rows.")
    @click.option("--once", is_flag=True, help="Print it once, as without a terminal and with -o.")
    @click.option(
        "--every", type=Duration(1.0, 3600.0), default="2s", show_default=True, help="Time between refreshes."
    )
    @functools.wraps(function)
    def command(*args: Any, order: str, limit: int | None, skip: int, owner: str = "", **kwargs: Any) -> Any:
        choice = Choice(order, limit or 0, skip, owner)
        return function(*args, choice=choice, **kwargs)

    return command  # type: ignore[return-value]


owner_option = click.option("--owner", default="", metavar="USER", help="Only the jobs of this user.")


@top.command(cls=Command, examples="  galaxy top agents\n  galaxy top agents --sort memory --once\n")
@top_options
@output_options
@cluster_options
def agents(target: Target, output: Output, choice: Choice, once: bool, every: float) -> None:
    """Show what hosts use, of what they offer; programs that are not Galaxy's included."""

    def ask(galaxy: Galaxy, order: str, limit: int) -> tuple[list[TopAgent], int]:
        rows = galaxy.top_agents(order)
        return rows[choice.skip :][:limit], len(rows)

    _run(target, output, "agents", choice, ask, agent_table, once=once, every_s=every)


@top.command(cls=Command, examples="  galaxy top jobs\n  galaxy top jobs --sort memory --owner ann\n")
@owner_option
@top_options
@output_options
@cluster_options
def jobs(target: Target, output: Output, choice: Choice, once: bool, every: float) -> None:
    """Show what the pods of each job use together, of what they asked for."""

    def ask(galaxy: Galaxy, order: str, limit: int) -> tuple[list[TopRow], int]:
        view = galaxy.top("jobs", order=order, limit=limit, skip=choice.skip, user=choice.owner)
        return list(view.rows), view.total

    _run(target, output, "jobs", choice, ask, job_table, once=once, every_s=every)


@top.command(cls=Command, examples="  galaxy top pods\n  galaxy top pods --limit 50 -o json\n")
@owner_option
@top_options
@output_options
@cluster_options
def pods(target: Target, output: Output, choice: Choice, once: bool, every: float) -> None:
    """Show what each pod uses, of what it asked for."""

    def ask(galaxy: Galaxy, order: str, limit: int) -> tuple[list[TopRow], int]:
        view = galaxy.top("pods", order=order, limit=limit, skip=choice.skip, user=choice.owner)
        return list(view.rows), view.total

    _run(target, output, "pods", choice, ask, pod_table, once=once, every_s=every)


LIMIT: Final = 20

Ask = Callable[[Galaxy, str, int], tuple[list[Any], int]]
Tabulate = Callable[[Sequence[Any]], tuple[list[str], list[list[str]]]]


def _run(
    target: Target, output: Output, subject: str, choice: Choice, ask: Ask, tabulate: Tabulate, *,
    once: bool, every_s: float,
) -> None:  # fmt: skip
    """Print the rows once, or refresh them on the terminal until the user ends it."""
    with target.open() as galaxy:
        if not once and output.for_people and sys.stdout.isatty():

            def frame(order: str, room: int) -> Frame:
                rows, total = ask(galaxy, order, choice.limit or room)
                return Frame(*tabulate(rows), total)

            show_live(f"galaxy top {subject}", frame, choice.order, every_s)
            return
        rows, _ = ask(galaxy, choice.order, choice.limit or LIMIT)
    if output.print_data(rows, [row.name for row in rows]):
        return
    if not rows:
        print_err(f"no {subject}")
        return
    output.print_table(*tabulate(rows))


def agent_table(rows: Sequence[TopAgent]) -> tuple[list[str], list[list[str]]]:
    """Return the table of ``galaxy top agents``."""
    return ["AGENT", "STATE", "CPU", "OF", "%", "MEMORY", "OF", "%", "LOAD", "PODS"], [
        [
            row.name, row.state,
            *_used(row.cpu_milli, row.total_cpu_milli, format_cpu, measured=row.is_measured),
            *_used(row.memory_bytes, row.total_memory_bytes, format_bytes, measured=row.is_measured),
            f"{row.load1:.2f}" if row.is_measured else "-", str(row.containers),
        ]
        for row in rows
    ]  # fmt: skip


def job_table(rows: Sequence[TopRow]) -> tuple[list[str], list[list[str]]]:
    """Return the table of ``galaxy top jobs``."""
    return ["JOB", "USER", "PODS", *_TITLES], [
        [row.name, row.user or "-", str(row.pods), *_asked(row)] for row in rows
    ]


def pod_table(rows: Sequence[TopRow]) -> tuple[list[str], list[list[str]]]:
    """Return the table of ``galaxy top pods``."""
    return ["POD", "AGENT", *_TITLES], [[row.name, row.agent or "-", *_asked(row)] for row in rows]


_TITLES: Final = ("CPU", "ASKED", "%", "MEMORY", "ASKED", "%")


def _asked(row: TopRow) -> list[str]:
    measured = row.memory_bytes > 0
    return [
        *_used(row.cpu_milli, row.asked_cpu_milli, format_cpu, measured=measured),
        *_used(row.memory_bytes, row.asked_memory_bytes, format_bytes, measured=measured),
    ]


def _used(amount: int, of: int, show: Callable[[int], str], *, measured: bool) -> list[str]:
    if not measured:
        return ["-", show(of), "-"]
    return [show(amount), show(of), f"{100 * amount / of:.0f}" if of else "-"]
