"""``galaxy agent cordon``, ``uncordon``, ``add``, ``remove`` and ``label``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from galaxy.cli.cluster.host_arguments import file_option, hosts_argument, print_changed
from galaxy.cli.confirm import confirm, yes_option
from galaxy.cli.lazy import Action
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, print_err
from galaxy.client.login_urls import drop_agent_login, restore_agent_login
from galaxy.errors import GalaxyError, UsageError

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why, for everybody who looks.")


@click.command(
    cls=Action,
    examples="""\
  galaxy agent cordon h1 --reason "fan fails"
  galaxy agent cordon --file rack4.txt
""",
)
@hosts_argument
@file_option
@reason_option
@output_options
@cluster_options
def cordon(target: Target, output: Output, hosts: tuple[str, ...], reason: str) -> None:
    """Place nothing new on HOSTs; what runs there goes on. For operators."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.cordon(hosts, reason=reason)
    print_changed(output, view, "cordoned", "cordoned before, for the same reason")


@click.command(cls=Action, examples="  galaxy agent uncordon h1\n")
@hosts_argument
@file_option
@output_options
@cluster_options
def uncordon(target: Target, output: Output, hosts: tuple[str, ...]) -> None:
    """Place containers on HOSTs again. For operators."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.uncordon(hosts)
    print_changed(output, view, "uncordoned", "not cordoned")


@click.command(
    cls=Action,
    examples="  galaxy agent add h7 --pool far --tag ssd --label rack=r2\n",
)
@click.argument("host")
@click.option("--pool", default="", metavar="POOL", help="Its pool, instead of that of its own flags.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="One more tag; may be repeated.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be repeated.")
@output_options
@cluster_options
def add(
    target: Target, output: Output, host: str, pool: str, tags: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    """Register HOST before its agent joins. For operators.

    Registering is optional: an agent that joins without it has the pool and tags of its own flags.
    """
    given, remove = read_labels(labels)
    if remove:
        raise UsageError(f'"{remove[0]}-" is not a label', hint="--label KEY=VALUE")
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.add_agent(host, pool=pool, tags=tags, labels=given)
    print_changed(output, view, "registered", "")


@click.command(
    cls=Action,
    examples="""\
  galaxy agent remove h9                   a host that does not return
  galaxy agent remove h9 --force --yes     also if it is alive or holds containers
""",
)
@hosts_argument
@file_option
@click.option("--force", is_flag=True, help="Also if it is alive or holds containers, which are replaced.")
@yes_option
@output_options
@cluster_options
def remove(target: Target, output: Output, hosts: tuple[str, ...], force: bool, yes: bool) -> None:
    """Forget HOSTs: their rows, heartbeats, mailboxes, queues and Redis logins. For operators.

    A login in Redis is deleted if Galaxy made it and this is the host of `galaxy up`.
    """
    if force and not yes:
        confirm([f"forget {host}" for host in hosts], hint=f"galaxy agent remove {hosts[0]} --force --yes")
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        folder = galaxy.cluster.dir
        # With force first, so that an agent that runs cannot join again.
        dropped = _drop_logins(hosts, folder) if force else []
        try:
            view = galaxy.remove_agents(hosts, force=force)
        except GalaxyError:
            _restore_logins(dropped, folder)
            raise
        if not force:
            _drop_logins(hosts, folder)
    print_changed(output, view, "removed", "")


def _drop_logins(hosts: Sequence[str], folder: str) -> list[str]:
    """Delete the Redis logins of hosts; return those that had one."""
    dropped = []
    for host in hosts:
        try:
            if drop_agent_login(host, dir=folder):
                dropped.append(host)
        except GalaxyError as error:
            print_err(f"the Redis login of {host} is left: {error.message}")
    return dropped


def _restore_logins(hosts: Sequence[str], folder: str) -> None:
    for host in hosts:
        try:
            restore_agent_login(host, dir=folder)
        except GalaxyError as error:
            print_err(
                f"the Redis login of {host} is deleted: {error.message}; "
                f"galaxy redis url agent --host {host} makes it again"
            )


@click.command(
    cls=Action,
    examples="""\
  galaxy agent label h1 rack=r2 zone=north       set labels
  galaxy agent label h1 rack-                    remove one
  galaxy agent label rack=r2 --file rack2.txt    of many hosts
""",
)
@click.argument("words", nargs=-1, required=True, metavar="[HOST...] KEY=VALUE|KEY-...")
@click.option(
    "--file", "files", multiple=True, metavar="FILE", help="A file with hosts; `-` is standard input."
)
@output_options
@cluster_options
def label(target: Target, output: Output, words: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Set labels of HOSTs (KEY=VALUE), and remove some (KEY-): racks, zones. For operators."""
    from galaxy.cli.cluster.host_arguments import all_hosts

    labels, remove_keys = read_labels([word for word in words if _is_label(word)])
    hosts = all_hosts([word for word in words if not _is_label(word)], files)
    if not labels and not remove_keys:
        raise UsageError("no label is given", hint="galaxy agent label HOST KEY=VALUE, or KEY- to remove one")
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.label_agents(hosts, labels, remove=remove_keys)
    print_changed(output, view, "labelled", "had these labels before")


def _is_label(word: str) -> bool:
    return "=" in word or word.endswith("-")


def read_labels(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the labels to set, and the keys of those to remove.

    Raises:
        UsageError: a word is neither KEY=VALUE nor KEY-, or a key is there twice.
    """
    labels: dict[str, str] = {}
    remove: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and word.endswith("-"):
            remove.append(word[:-1])
        elif not equals or not key or not value:
            raise UsageError(
                f'"{word[:80]}" is not a label', details=["KEY=VALUE sets one, KEY- removes one"]
            )
        elif key in labels:
            raise UsageError(f"label {key} is given twice")
        else:
            labels[key] = value
    both = [key for key in remove if key in labels]
    if both:
        raise UsageError(f"label {both[0]} is to be set and to be removed")
    return labels, tuple(remove)
