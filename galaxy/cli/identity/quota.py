"""``galaxy quota``: ceilings on what each user's jobs request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
from msgspec.structs import replace

from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, print_err, print_out
from galaxy.errors import UsageError
from galaxy.model.api.views import QuotaView
from galaxy.model.resources import AMOUNT_MAX, LIMITS_EXAMPLE, RESOURCES, Ceiling, Resource
from galaxy.model.stored.user import ALL_POOLS
from galaxy.suggest import nearest
from galaxy.units import parse_count

EXAMPLES = """\
  galaxy quota set ann cpu=8 memory=16G containers=40   limit ann over all pools
  galaxy quota set ann far disk=100G                    limit ann in pool far
  galaxy quota set ann cpu=none                         remove a limit
  galaxy quota show ann                                 show used, wanted and ceiling
"""

_BY_FIELD: Final = {row.field: row for row in RESOURCES}
GALAXY3: Final = {
    "millicore": replace(_BY_FIELD["cpu_milli"], parse=parse_count),
    "replica": _BY_FIELD["containers"],
}
"""Names of Galaxy 3, which are accepted as well."""
LIMITS: Final = {**{row.name: row for row in RESOURCES}, **GALAXY3}
"""What can be limited, by the name on the command line."""


@click.group(cls=LazyGroup, aliases={"ls": "list"}, examples=EXAMPLES)
def quota() -> None:
    """Limit what all jobs of a user request together, over all pools or in one pool."""


@quota.command(
    "set",
    cls=Action,
    help=f"""Set ceilings of USER over all pools, or in POOL; for operators.

    FIELD is {", ".join(f"{row.name} ({row.unit})" for row in RESOURCES)}. LIMIT `none` removes a
    ceiling. Other ceilings stay as they are. Jobs that already run are not affected: only requests
    beyond a ceiling are refused.
    """,
)
@click.argument("user")
@click.argument("limits", nargs=-1, required=True, metavar="[POOL] FIELD=LIMIT...")
@cluster_options
def set_(target: Target, user: str, limits: Sequence[str]) -> None:
    pool = "" if "=" in limits[0] else limits[0]
    ceiling, lift = read_limits(limits[1:] if pool else limits)
    with target.open_to_change() as galaxy:
        view = galaxy.set_quota(user, ceiling, pool=pool or ALL_POOLS, lift=lift)
    for line in quota_lines(view):
        print_out(line)


@quota.command("list", cls=Command)
@output_options
@cluster_options
def list_(target: Target, output: Output) -> None:
    """List quotas: all of them for operators, your own for other users."""
    _print_quotas(target, output, "")


@quota.command(cls=Command)
@click.argument("user")
@output_options
@cluster_options
def show(target: Target, output: Output, user: str) -> None:
    """Show what USER uses and requests, and the ceilings."""
    _print_quotas(target, output, user)


def read_limits(arguments: Sequence[str]) -> tuple[Ceiling, tuple[str, ...]]:
    """Parse ``cpu=2 memory=none`` into the ceilings to set, and the fields whose ceiling to remove.

    Raises:
        UsageError: an argument is not a limit; the hint shows how to write one.
    """
    limits: dict[str, int] = {}
    lift: list[str] = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        resource = LIMITS.get(name)
        if not equals:
            raise UsageError(f'"{argument}" is not a limit', hint=LIMITS_EXAMPLE)
        if resource is None:
            guess = nearest(name, LIMITS)
            meant = f"; did you mean {guess}?" if guess else ""
            raise UsageError(f'a quota cannot limit "{name}"{meant}', hint=LIMITS_EXAMPLE)
        field = resource.field
        if field in limits or field in lift:
            raise UsageError(f'"{name}" is limited twice')
        if text == "none":
            lift.append(field)
        else:
            limits[field] = _parse_limit(name, resource, text)
    if not limits and not lift:
        raise UsageError("no limit given", hint=LIMITS_EXAMPLE)
    return Ceiling(**limits), tuple(lift)


def quota_lines(view: QuotaView) -> list[str]:
    """Return one quota as lines for people."""
    where = "all pools" if view.pool == ALL_POOLS else f"pool {view.pool}"
    rows = (
        f"  {name}: ceiling {ceiling}, {wanted} wanted, {used} used"
        + ("" if over == "-" else f", {over} over")
        for _, _, name, used, wanted, ceiling, over in _rows(view)
    )
    return [f"{view.user} on {where}", *rows]


def _parse_limit(name: str, resource: Resource, text: str) -> int:
    try:
        number = resource.parse(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f'"{name}={text}" is not a limit', details=[str(error)[:200]]) from error
    if not 0 <= number <= AMOUNT_MAX:
        raise UsageError(f'"{name}={text[:40]}" is out of range', details=["from 0 to 4 PiB, or 2**52"])
    return number


def _print_quotas(target: Target, output: Output, user: str) -> None:
    with target.open() as galaxy:
        quotas = galaxy.quotas(user)
    if output.print_data(quotas, [f"{one.user}/{one.pool}" for one in quotas]):
        return
    if not quotas:
        print_err(f'no quota limits "{user}"; galaxy quota set USER cpu=8' if user else "no quotas")
        return
    rows = [row for view in quotas for row in _rows(view)]
    output.print_table(["USER", "POOL", "RESOURCE", "USED", "WANTED", "CEILING", "OVER"], rows)


def _rows(view: QuotaView) -> list[list[str]]:
    """Return a table row for each field; a missing ceiling is shown as ``none``."""
    rows = []
    for row in RESOURCES:
        limit = getattr(view.ceiling, row.field)
        ceiling = "none" if limit is None else row.show(limit)
        over = row.text(view.over) if getattr(view.over, row.field) else "-"
        rows.append(
            [view.user, view.pool, row.name, row.text(view.used), row.text(view.wanted), ceiling, over]
        )
    return rows
