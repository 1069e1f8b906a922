"""``galaxy user`` and ``galaxy audit``: who may do what, and who did."""

from __future__ import annotations

import secrets
import time
from typing import Final

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.errors import Unreachable, UsageError
from galaxy.model.api.signing import split_token, stored_key
from galaxy.model.api.views import UserView
from galaxy.model.stored.user import ALL_POOLS, AuditRecord, Authority, Role

FOLLOW_S: Final = 1.0

EXAMPLES = """\
  galaxy user add ann > ann.token                       make a user; the token is shown this once
  galaxy user grant ann main add submit_job update_job remove_job list_job
  galaxy context add prod --redis URL --token ann.token what ann does with it
  galaxy user token ann > ann.token                     another token; the old one is void
"""


@click.group(cls=LazyGroup, aliases={"ls": "list", "rm": "remove"}, examples=EXAMPLES)
def user() -> None:
    """Make users, give them tokens, and say what each may do on which pool."""


@user.command(cls=Command)
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), default="user", show_default=True)
@click.option("--with-jobs", is_flag=True, help="Jobs that were run in this name before are his own.")
@cluster_options
def add(target: Target, name: str, role: str, with_jobs: bool) -> None:
    """Make a user, and print the token; nobody can print it again.

    Jobs may bear his name already: of before there were users, when everybody called himself what he
    liked. They are not his, unless he is an operator or you say so.
    """
    with target.open() as galaxy:
        print_out(galaxy.add_user(name, role=role, with_jobs=with_jobs))


@user.command(cls=Command)
@click.argument("name")
@cluster_options
def remove(target: Target, name: str) -> None:
    """Remove a user whose jobs are gone; what is left of them belongs to nobody.

    His token, grants, secrets and quotas go with him. Whoever is given his name later is somebody else.
    """
    with target.open() as galaxy:
        galaxy.remove_user(name)
    print_err(f"user {name} removed")


@user.command("list", cls=Command)
@output_options
@cluster_options
def list_(target: Target, output: Output) -> None:
    """List users, their roles and pools."""
    with target.open() as galaxy:
        users = galaxy.users()
    if output.print_data(users, [one.user for one in users]):
        return
    rows = [
        [one.user, one.role.value, format_time(one.created_s), ", ".join(sorted(one.grants))] for one in users
    ]
    output.print_table(["NAME", "ROLE", "CREATED", "POOLS"], rows)


@user.command(cls=Command)
@click.argument("name")
@output_options
@cluster_options
def show(target: Target, output: Output, name: str) -> None:
    """Show a user and his grants."""
    with target.open() as galaxy:
        view = galaxy.user(name)
    if not output.print_data(view, [view.user]):
        for line in user_lines(view):
            print_out(line)


@user.command(cls=Command)
@click.argument("name")
@cluster_options
def token(target: Target, name: str) -> None:
    """Give a user another token, and print it; the one he had is void."""
    with target.open() as galaxy:
        print_out(galaxy.new_token(name))


@user.command(cls=Command)
@click.argument("name")
@click.argument("pool")
@click.argument("action", type=click.Choice(["add", "remove", "set", "clear"]))
@click.argument(
    "authorities", nargs=-1, metavar="[AUTHORITY]...", type=click.Choice([one.value for one in Authority])
)
@cluster_options
def grant(target: Target, name: str, pool: str, action: str, authorities: tuple[str, ...]) -> None:
    """Change what a user may do on a pool; `*` is every pool.

    Authorities: create_container, remove_container, update_container, list_container, submit_job,
    remove_job, update_job, list_job.
    """
    if (action == "clear") == bool(authorities):
        raise UsageError(f"`{action}` takes {'no' if action == 'clear' else 'at least one'} authority")
    with target.open() as galaxy:
        view = galaxy.grant(name, pool, action, authorities)
    for line in user_lines(view):
        print_out(line)


@user.command(cls=Command)
@click.argument("name")
def key(name: str) -> None:
    """Make a token without a cluster: the token to stdout, what --first-operator takes to stderr."""
    made = f"{name}:{secrets.token_urlsafe(32)}"
    who, secret = split_token(made)
    print_out(made)
    print_err(f"{who}:{stored_key(secret)}")


@click.command(cls=Command, examples="  galaxy audit\n  galaxy audit -f\n  galaxy audit -n 1000 -o json\n")
@click.option(
    "-n", "--number", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as there are more.")
@output_options
@cluster_options
def audit(target: Target, output: Output, number: int, follow: bool) -> None:
    """Show who did what, when, and what came of it; for operators."""
    with target.open() as galaxy:
        found = galaxy.audit(limit=number)
        if not follow and output.print_data(list(found.records), [str(one.serial) for one in found.records]):
            return
        if not follow:
            rows = [_row(one) for one in found.records]
            output.print_table(["WHEN", "WHO", "WHAT", "OF", "RESULT"], rows)
            return
        last = found.last
        _tell(found.records)
        while True:
            try:
                found = galaxy.audit(after=last, limit=1000) if last else galaxy.audit(limit=number)
            except Unreachable as error:
                print_err(f"galaxy: {error.message}; still trying")
                time.sleep(FOLLOW_S)
                continue
            _tell(found.records)
            last = found.records[-1].serial if found.records else last
            if not found.records:
                time.sleep(FOLLOW_S)


def user_lines(view: UserView) -> list[str]:
    """Return what there is to tell about a user."""
    made = f", made by {view.by}" if view.by else ""
    lines = [f"{view.user}: {view.role.value}, since {format_time(view.created_s)}{made}"]
    if view.role is Role.OPERATOR:
        return [*lines, "  may do everything"]
    for pool, authorities in view.grants.items():
        where = "every pool" if pool == ALL_POOLS else f"pool {pool}"
        lines.append(f"  on {where}: {', '.join(authorities)}")
    return lines if view.grants else [*lines, "  has no grants yet"]


def _row(record: AuditRecord) -> list[str]:
    result = record.result if record.result == "ok" else f"{record.result}: {record.message}"
    return [format_time(record.at_s), record.user, record.op.removeprefix("galaxy."), record.target, result]


def _tell(records: tuple[AuditRecord, ...]) -> None:
    for record in records:
        print_out("  ".join(_row(record)))
