"""``galaxy secret``: values for the environment of programs that are never shown."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from galaxy.cli.confirm import confirm, yes_option
from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options, owner_option, owners_options
from galaxy.cli.output import Output, format_time, print_err
from galaxy.cli.tables import job_names
from galaxy.client.secret_files import read_file, secret_of
from galaxy.model.stored.secret import SECRET_BYTES_MAX, Secret

EXAMPLES = """\
  galaxy secret set db < password.txt            set it from standard input
  galaxy secret set db --from-file password.txt  set it from a file
  galaxy secret list                             list names and the jobs that use them, no values
  galaxy job update web.yaml                     give a job the new value
"""


@click.group(cls=LazyGroup, aliases={"ls": "list", "rm": "remove"}, examples=EXAMPLES)
def secret() -> None:
    """Store values for the environment of programs: `env: {DB: {secret: db}}` in a job file."""


@secret.command("set", cls=Action)
@click.argument("name")
@click.option("--from-file", "file", metavar="FILE", default="", help="Read it from FILE instead of stdin.")
@owner_option
@cluster_options
def set_(target: Target, name: str, file: str, user: str) -> None:
    """Set a secret to a value read from standard input.

    One newline at the end is removed. Jobs keep the old value until they are updated.
    """
    value = read_file(Path(file)) if file else _read_value(name)
    with target.open_to_change() as galaxy:
        view = galaxy.set_secret(name, value, user=user)
    print_err(f"secret {view.name} {'set' if view.serial == 1 else 'changed'}")
    if view.jobs:
        print_err(f"these jobs keep the old value until they are updated: {job_names(view)}")


@secret.command("list", cls=Command)
@owners_options("Secrets")
@output_options
@cluster_options
def list_(target: Target, output: Output, user: str, every: bool) -> None:
    """List secrets: names, owners, when they were set, and the jobs that use them."""
    with target.open() as galaxy:
        secrets = galaxy.secrets(user=user, all=every)
    if output.print_data(secrets, [one.name for one in secrets]):
        return
    if not secrets:
        print_err("no secrets; galaxy secret set NAME < FILE")
        return
    rows = [[one.name, one.user, format_time(one.at_s), one.by, job_names(one)] for one in secrets]
    output.print_table(["NAME", "OWNER", "SET", "BY", "USED BY"], rows)


@secret.command(cls=Action)
@click.argument("name")
@owner_option
@yes_option
@cluster_options
def remove(target: Target, name: str, user: str, yes: bool) -> None:
    """Remove a secret that no job uses."""
    with target.open_to_change() as galaxy:
        if not yes:
            confirm([f"remove secret {name}"], hint=f"galaxy secret remove --yes {shlex.quote(name)}")
        galaxy.remove_secret(name, user=user)
    print_err(f"secret {name} removed")


def _read_value(name: str) -> Secret:
    """Read the value from standard input; on a terminal, prompt for it without echo."""
    if sys.stdin.isatty():
        text: str = click.prompt(f"value of {name}", hide_input=True, confirmation_prompt=True, err=True)
        return secret_of(text.encode(), "standard input")
    return secret_of(sys.stdin.buffer.read(SECRET_BYTES_MAX + 3), "standard input")
