"""``galaxy quota``: ceilings on what each user's jobs request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, print_err, print_out
from galaxy.errors import UsageError
from galaxy.model.api.views import QuotaView
from galaxy.model.stored.quota import Ceiling
from galaxy.model.stored.user import ALL_POOLS
from galaxy.scheduler.quota import shown
from galaxy.suggest import nearest
from galaxy.units import parse_bytes, parse_cpu

EXAMPLES = """\
  galaxy quota set ann cpu=8 memory=16G containers=40   limit ann over all pools
  galaxy quota set ann far disk=100G                    limit ann in pool far
  galaxy quota set ann cpu=none                         remove a limit
  galaxy quota show ann                                 show used, wanted and ceiling
"""

FIELDS: Final = {
    "cpu": "cpu_milli", "memory": "memory_bytes", "disk": "disk_bytes", "containers": "containers",
}  # fmt: skip
"""What can be limited: names for people, and fields of ``Ceiling``."""
GALAXY3_FIELDS: Final = {"millicore": "cpu_milli", "replica": "containers"}
"""Names of Galaxy 3, which are accepted as well."""

HINT: Final = "cpu=8 memory=16G disk=100G containers=40"


@click.group(cls=LazyGroup, aliases={"ls": "list"}, examples=EXAMPLES)
def quota() -> None:
    """Limit what all jobs of a user request together, over all pools or in one pool."""


@quota.command("set", cls=Command)
@click.argument("user")
@click.argument("limits", nargs=-1, required=True, metavar="[POOL] FIELD=LIMIT...")
@cluster_options
def set_(target: Target, user: str, limits: Sequence[str]) -> None:
    """Set ceilings of USER over all pools, or in POOL; for operators.

    FIELD is cpu (cores, or millicores like 500m), memory, disk or containers. LIMIT `none`
    removes a ceiling. Other ceilings stay as they are. Jobs that already run are not affected:
    only requests beyond a ceiling are refused.
    """
    pool = "" if "=" in limits[0] else limits[0]
    ceiling, lift = read_limits(limits[1:] if pool else limits)
    with target.open() as galaxy:
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
        field = FIELDS.get(name) or GALAXY3_FIELDS.get(name)
        if not equals:
            raise UsageError(f'"{argument}" is not a limit', hint=HINT)
        if field is None:
            guess = nearest(name, [*FIELDS, *GALAXY3_FIELDS])
            meant = f"; did you mean {guess}?" if guess else ""
            raise UsageError(f'a quota cannot limit "{name}"{meant}', hint=HINT)
        if field in limits or field in lift:
            raise UsageError(f'"{name}" is limited twice')
        if text == "none":
            lift.append(field)
        else:
            limits[field] = _parse_limit(name, field, text)
    if not limits and not lift:
        raise UsageError("no limit given", hint=HINT)
    return Ceiling(**limits), tuple(lift)


def quota_lines(view: QuotaView) -> list[str]:
    """Return one quota as lines for people."""
    where = "all pools" if view.pool == ALL_POOLS else f"pool {view.pool}"
    rows = (
        f"  {name}: ceiling {ceiling}, {wanted} wanted, {used} used"
        for _, _, name, used, wanted, ceiling in _rows(view)
    )
    return [f"{view.user} on {where}", *rows]


def _parse_limit(name: str, field: str, text: str) -> int:
    try:
        if name in ("containers", "replica", "millicore"):
            number = _parse_count(text)
        else:
            number = parse_cpu(text) if field == "cpu_milli" else parse_bytes(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f'"{name}={text}" is not a limit', details=[str(error)[:200]]) from error
    if not 0 <= number <= 1 << 52:
        raise UsageError(f'"{name}={text[:40]}" is out of range', details=["from 0 to 4 PiB, or 2**52"])
    return number


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
        raise ValueError("it must be a whole number, or none")
    return int(text)


def _print_quotas(target: Target, output: Output, user: str) -> None:
    with target.open() as galaxy:
        quotas = galaxy.quotas(user)
    if output.print_data(quotas, [f"{one.user}/{one.pool}" for one in quotas]):
        return
    if not quotas:
        print_err(f'no quota limits "{user}"; galaxy quota set USER cpu=8' if user else "nobody has a quota")
        return
    rows = [row for view in quotas for row in _rows(view)]
    output.print_table(["USER", "POOL", "OF", "USED", "WANTED", "CEILING"], rows)


def _rows(view: QuotaView) -> list[list[str]]:
    """Return a table row for each field; a missing ceiling is shown as ``none``."""
    rows = []
    for name, field in FIELDS.items():
        numbers = [getattr(value, field) for value in (view.used, view.wanted, view.ceiling)]
        texts = ["none" if number is None else shown(field, number) for number in numbers]
        rows.append([view.user, view.pool, name, *texts])
    return rows
