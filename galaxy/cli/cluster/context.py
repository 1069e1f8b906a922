"""``galaxy context``: the clusters that this user knows, and the current one."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click
from click.shell_completion import CompletionItem

from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import output_options, redis_options
from galaxy.cli.output import Output, print_err, print_out
from galaxy.client import contexts
from galaxy.client.cluster_file import read_cluster
from galaxy.client.contexts import Context
from galaxy.errors import GalaxyError, UsageError
from galaxy.model.api.signing import split_token
from galaxy.nexus.url import parse


def _names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        known = contexts.load_contexts().contexts
    except GalaxyError:
        return []
    return [CompletionItem(c.name, help=c.dir) for c in known if c.name.startswith(incomplete)]


@click.group(
    cls=LazyGroup,
    aliases={"ls": "list", "rm": "remove"},
    examples="""\
  galaxy context list                          list the known clusters
  galaxy context use staging                   use this cluster from now on
  galaxy context add staging --redis-file FILE add a cluster on other hosts
""",
)
def context() -> None:
    """Choose the cluster that commands use."""


@context.command("list", cls=Command)
@output_options
def list_(output: Output) -> None:
    """List the known clusters; `*` marks the current one."""
    known = contexts.load_contexts()
    if output.print_data([_public(c) for c in known.contexts], [c.name for c in known.contexts]):
        return
    rows = [
        ["*" if c.name == known.current else "", c.name, c.dir or _public(c).url, _state(c)]
        for c in known.contexts
    ]
    output.print_table(["", "NAME", "WHERE", "STATE"], rows)


@context.command(cls=Action)
@click.argument("name", shell_complete=_names)
def use(name: str) -> None:
    """Make a context the current one."""
    contexts.use_context(name)
    print_out(f"context {name} is now the current one")


@context.command(cls=Action)
@click.argument("name")
@redis_options
@click.option("--dir", "directory", metavar="DIR", default="", help="The folder of a cluster on this host.")
@click.option(
    "--token", type=click.File(), metavar="FILE", help="A file with your token; `-` is standard input."
)
def add(name: str, redis: str, directory: str, token: TextIO | None) -> None:
    """Add a cluster under a name, and make it the current context."""
    if bool(redis) == bool(directory):
        raise UsageError("give either --redis-file, --redis or --dir")
    if redis:
        parse(redis, files=False)
    text = token.read(1000).strip() if token is not None else ""
    if text:
        split_token(text)
    contexts.save_context(dir=directory, url=redis, name=name, token=text)
    print_out(f"context {name} is now the current one")


@context.command(cls=Action)
@click.argument("name", shell_complete=_names)
def remove(name: str) -> None:
    """Remove a context; the cluster itself is not touched."""
    known = contexts.load_contexts()
    contexts.known_context(known, name)
    rest = contexts.remove_context(name=name)
    print_out(f"context {name} removed")
    if known.current == name and rest.contexts:
        now = f"{rest.current} is now the current one" if rest.current else "none is the current one now"
        print_err(f"{now}; galaxy context use NAME")


def _public(context: Context) -> Context:
    """Return a context without its token and password, for display."""
    return Context(name=context.name, dir=context.dir, url=contexts.without_password(context.url))


def _state(context: Context) -> str:
    if not context.dir:
        return "remote"
    try:
        read_cluster(context.dir)
    except GalaxyError:
        return "unreadable"
    if contexts.is_up(context):
        return "up"
    return "stopped" if Path(context.dir).exists() else "deleted"
