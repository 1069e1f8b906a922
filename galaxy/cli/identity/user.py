"""``galaxy user``: users, their tokens, and what each may do."""

from __future__ import annotations

import secrets
import shlex

import click

from galaxy.cli.confirm import confirm, yes_option
from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.errors import UsageError
from galaxy.model.api.signing import split_token, stored_key
from galaxy.model.api.views import UserView
from galaxy.model.stored.user import ALL_POOLS, Authority, Role

EXAMPLES = """\
  galaxy user add ann > ann.token                       add a user; the token is printed only here
  galaxy user grant ann main add submit_job update_job remove_job list_job
  galaxy context add prod --redis-file FILE --token ann.token
                                                        use the token, as ann
  galaxy user token ann > ann.token                     replace the token; the old one becomes invalid
"""


@click.group(cls=LazyGroup, aliases={"ls": "list", "rm": "remove"}, examples=EXAMPLES)
def user() -> None:
    """Manage users, their tokens, and what each may do on which pool."""


@user.command(cls=Command)
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), default="user", show_default=True)
@click.option("--with-jobs", is_flag=True, help="The user becomes the owner of earlier jobs under this name.")
@cluster_options
def add(target: Target, name: str, role: str, with_jobs: bool) -> None:
    """Add a user and print the token, which cannot be printed again.

    Jobs under this name may be older than the first user, when requests could carry any name. The
    new user does not own them, unless it is an operator or --with-jobs is given.
    """
    with target.open_to_change() as galaxy:
        print_out(galaxy.add_user(name, role=role, with_jobs=with_jobs))


@user.command(cls=Action)
@click.argument("name")
@yes_option
@cluster_options
def remove(target: Target, name: str, yes: bool) -> None:
    """Remove a user whose jobs are gone, with the token, grants, secrets and quotas.

    The history of the user's jobs then has no owner. A user who is later added under the same
    name does not own it.
    """
    with target.open_to_change() as galaxy:
        if not yes:
            view = galaxy.user(name)
            action = f"remove {view.role.value} {view.user} with the token, grants, secrets and quotas"
            confirm([action], hint=f"galaxy user remove --yes {shlex.quote(name)}")
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
    """Show a user and the grants."""
    with target.open() as galaxy:
        view = galaxy.user(name)
    if not output.print_data(view, [view.user]):
        for line in user_lines(view):
            print_out(line)


@user.command(cls=Command)
@click.argument("name")
@cluster_options
def token(target: Target, name: str) -> None:
    """Replace a user's token, and print the new one; the old token becomes invalid."""
    with target.open_to_change() as galaxy:
        print_out(galaxy.new_token(name))


@user.command(cls=Action)
@click.argument("name")
@click.argument("pool")
@click.argument("action", type=click.Choice(["add", "remove", "set", "clear"]))
@click.argument(
    "authorities", nargs=-1, metavar="[AUTHORITY]...", type=click.Choice([one.value for one in Authority])
)
@cluster_options
def grant(target: Target, name: str, pool: str, action: str, authorities: tuple[str, ...]) -> None:
    """Change what a user may do on a pool; `*` means every pool.

    Authorities: create_container, remove_container, update_container, list_container, submit_job,
    remove_job, update_job, list_job.
    """
    if (action == "clear") == bool(authorities):
        raise UsageError(f"`{action}` takes {'no' if action == 'clear' else 'at least one'} authority")
    with target.open_to_change() as galaxy:
        view = galaxy.grant(name, pool, action, authorities)
    for line in user_lines(view):
        print_out(line)


@user.command(cls=Command)
@click.argument("name")
def key(name: str) -> None:
    """Make a token without a cluster: print it to stdout, and the value of --first-operator to stderr."""
    made = f"{name}:{secrets.token_urlsafe(32)}"
    who, secret = split_token(made)
    print_out(made)
    print_err(f"{who}:{stored_key(secret)}")


def user_lines(view: UserView) -> list[str]:
    """Return a description of a user: the role, then the grants of one pool per line."""
    made = f", made by {view.by}" if view.by else ""
    lines = [f"{view.user}: {view.role.value}, since {format_time(view.created_s)}{made}"]
    if view.role is Role.OPERATOR:
        return [*lines, "  may do everything"]
    for pool, authorities in view.grants.items():
        where = "every pool" if pool == ALL_POOLS else f"pool {pool}"
        lines.append(f"  on {where}: {', '.join(authorities)}")
    return lines if view.grants else [*lines, "  has no grants yet"]
