"""``galaxy quota``: how much of the cluster each user may have."""

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
  galaxy quota set ann cpu=8 memory=16G containers=40   over all pools
  galaxy quota set ann far disk=100G                    of what may run in pool far
  galaxy quota set ann cpu=none                         no limit again
  galaxy quota show ann                                 used, wanted and ceiling
"""

FIELDS: Final = {
    "cpu": "cpu_milli", "memory": "memory_bytes", "disk": "disk_bytes", "containers": "containers",
    "millicore": "cpu_milli", "replica": "containers",
}  # fmt: skip
"""What can be limited; the last two are the ancestor's words."""


HINT: Final = "cpu=8 memory=16G disk=100G containers=40"


@click.group(cls=LazyGroup, aliases={"ls": "list"}, examples=EXAMPLES)
def quota() -> None:
    """Limit what each user's jobs may ask together, everywhere or in one pool."""


@quota.command("set", cls=Command)
@click.argument("user")
@click.argument("words", nargs=-1, required=True, metavar="[POOL] FIELD=LIMIT...")
@cluster_options
def set_(target: Target, user: str, words: Sequence[str]) -> None:
    """Set ceilings of USER, over all pools or over one; for operators.

    FIELD is cpu (cores, or millicores like 500m), memory, disk, or containers; LIMIT `none` lifts
    it. What is not named stays. What runs stays too: only growth beyond a ceiling is refused.
    """
    pool = "" if "=" in words[0] else words[0]
    ceiling, lift = read_limits(words[1:] if pool else words)
    with target.open() as galaxy:
        view = galaxy.set_quota(user, ceiling, pool=pool or ALL_POOLS, lift=lift)
    for line in quota_lines(view):
        print_out(line)


@quota.command("list", cls=Command)
@output_options
@cluster_options
def list_(target: Target, output: Output) -> None:
    """List quotas: all of them for operators, their own for others."""
    _print(target, output, "")


@quota.command(cls=Command)
@click.argument("user")
@output_options
@cluster_options
def show(target: Target, output: Output, user: str) -> None:
    """Show what USER uses, wants, and may have."""
    _print(target, output, user)


def read_limits(words: Sequence[str]) -> tuple[Ceiling, tuple[str, ...]]:
    """Read ``cpu=2 memory=none``: the limits to set, and the fields to lift.

    Raises:
        UsageError: a word is not a limit; says how one is written.
    """
    limits: dict[str, int] = {}
    lift: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        field = FIELDS.get(name)
        if not equals:
            raise UsageError(f'"{word}" is not a limit', hint=HINT)
        if field is None:
            guess = nearest(name, FIELDS)
            meant = f"; did you mean {guess}?" if guess else ""
            raise UsageError(f'a quota cannot limit "{name}"{meant}', hint=HINT)
        if field in limits or field in lift:
            raise UsageError(f'"{name}" is limited twice')
        if text == "none":
            lift.append(field)
        else:
            limits[field] = _number(name, field, text)
    if not limits and not lift:
        raise UsageError("no limit given", hint=HINT)
    return Ceiling(**limits), tuple(lift)


def quota_lines(view: QuotaView) -> list[str]:
    """Return what there is to tell of one quota."""
    where = "all pools" if view.pool == ALL_POOLS else f"pool {view.pool}"
    rows = (
        f"  {word}: ceiling {limit}, {wanted} wanted, {used} used"
        for _, _, word, used, wanted, limit in _rows(view)
    )
    return [f"{view.user} on {where}", *rows]


def _number(name: str, field: str, text: str) -> int:
    try:
        if name in ("containers", "replica", "millicore"):
            number = _whole(text)
        else:
            number = parse_cpu(text) if field == "cpu_milli" else parse_bytes(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f'"{name}={text}" is not a limit', details=[str(error)[:200]]) from error
    if not 0 <= number <= 1 << 52:
        raise UsageError(f'"{name}={text[:40]}" is out of all range', details=["from 0 to 4 PiB, or 2**52"])
    return number


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
        raise ValueError("it wants a whole number, or none")
    return int(text)


def _print(target: Target, output: Output, user: str) -> None:
    with target.open() as galaxy:
        found = galaxy.quotas(user)
    if output.print_data(found, [f"{one.user}/{one.pool}" for one in found]):
        return
    if not found:
        print_err(f'no quota limits "{user}"; galaxy quota set USER cpu=8' if user else "nobody has a quota")
        return
    rows = [row for view in found for row in _rows(view)]
    output.print_table(["USER", "POOL", "OF", "USED", "WANTED", "CEILING"], rows)


def _rows(view: QuotaView) -> list[list[str]]:
    """Return a row for each field; one without a ceiling says ``none``."""
    rows = []
    for word, field in list(FIELDS.items())[:4]:
        limit = getattr(view.ceiling, field)
        numbers = [getattr(view.used, field), getattr(view.wanted, field), limit]
        texts = ["none" if number is None else shown(field, number) for number in numbers]
        rows.append([view.user, view.pool, word, *texts])
    return rows
