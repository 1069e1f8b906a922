"""``galaxy pool`` and ``galaxy tag``: which machines belong together. ResMan answers."""

from __future__ import annotations

import click

from galaxy.cli.cluster.host_arguments import all_hosts, print_changed
from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, print_err, print_out
from galaxy.errors import NotFound, UsageError
from galaxy.model.api.machines import PoolView
from galaxy.model.resources import ASKED
from galaxy.suggest import did_you_mean

files_option = click.option(
    "--file", "files", multiple=True, metavar="FILE",
    help="A file with more hosts, separated by spaces or lines; `-` is standard input.",
)  # fmt: skip


@click.group(
    cls=LazyGroup,
    aliases={"ls": "list"},
    examples="""\
  galaxy pool list
  galaxy pool create far
  galaxy pool move h7 h8 far
  galaxy pool move far --file rack4.txt
""",
)
def pool() -> None:
    """Manage pools: disjoint sets of agents, on which users get grants and quotas."""


@pool.command("list", cls=Command, examples="  galaxy pool list\n  galaxy pool list -o json\n")
@output_options
@cluster_options
def list_pools(target: Target, output: Output) -> None:
    """List pools with their agents, assigned and total resources. For operators."""
    with target.open() as galaxy:
        pools = galaxy.pools()
    if output.print_data(pools, [view.pool for view in pools]):
        return
    if not pools:
        print_err("no pools, as no agent has joined; galaxy pool create POOL makes one")
        return
    rows = [
        [
            view.pool,
            str(sum(view.agents.values())),
            _states(view),
            *(f"{row.text(view.assigned)}/{row.text(view.total)}" for row in ASKED),
            view.by or "-",
        ]
        for view in pools
    ]
    output.print_table(["POOL", "AGENTS", "STATES", *(row.name.upper() for row in ASKED), "CREATED BY"], rows)


def _states(view: PoolView) -> str:
    """Return how many agents of a pool are in which state, and how many have not joined yet."""
    counts = {**view.agents, "registered": view.registered}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "-"


@pool.command("create", cls=Action, examples="  galaxy pool create far\n")
@click.argument("name")
@output_options
@cluster_options
def create(target: Target, output: Output, name: str) -> None:
    """Create an empty pool. For operators."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.create_pool(name)
    if not output.print_data(view, [view.pool]):
        print_out(f"pool {view.pool} created")


@pool.command("remove", cls=Action, examples="  galaxy pool remove far\n")
@click.argument("name")
@output_options
@cluster_options
def remove(target: Target, output: Output, name: str) -> None:
    """Remove a pool that has no agents. For operators."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.remove_pool(name)
    if not output.print_data(view, [view.pool]):
        print_out(f"pool {view.pool} removed")


@pool.command("move", cls=Action, examples="  galaxy pool move h7 h8 far\n")
@click.argument("words", nargs=-1, required=True, metavar="[HOST...] POOL")
@files_option
@output_options
@cluster_options
def move(target: Target, output: Output, words: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Move HOSTs to POOL. For operators."""
    *hosts, name = words
    named = all_hosts(hosts, files)
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.move_pool(named, name)
    print_changed(output, view, f"moved to pool {name}", f"in pool {name} before")


@click.group(
    cls=LazyGroup,
    aliases={"ls": "list"},
    examples="""\
  galaxy tag list
  galaxy tag add ssd h1 h2
  galaxy tag add ssd,fast --file hosts.txt
  galaxy tag remove ssd h2
""",
)
def tag() -> None:
    """Manage tags: free marks on agents, which jobs can ask for."""


@tag.command("list", cls=Command, examples="  galaxy tag list\n  galaxy tag list ssd -o name\n")
@click.argument("name", default="", metavar="[TAG]")
@output_options
@cluster_options
def list_tags(target: Target, output: Output, name: str) -> None:
    """List tags with their agents, or the agents of one TAG. For operators."""
    with target.open() as galaxy:
        tags = galaxy.tags()
    if name:
        chosen = [view for view in tags if view.tag == name]
        if not chosen:
            near = did_you_mean(name, [view.tag for view in tags])
            raise NotFound(f'no agent has the tag "{name}"', details=near, hint="galaxy tag list")
        tags = chosen
    names = list(tags[0].agents) if name else [view.tag for view in tags]
    if output.print_data(tags, names):
        return
    if not tags:
        print_err("no agent has a tag; galaxy tag add TAG HOST gives one")
        return
    rows = [[view.tag, str(len(view.agents)), ", ".join(view.agents)] for view in tags]
    output.print_table(["TAG", "COUNT", "AGENTS"], rows)


@tag.command("add", cls=Action, examples="  galaxy tag add ssd h1 h2\n  galaxy tag add ssd --file -\n")
@click.argument("tags", metavar="TAG[,TAG...]")
@click.argument("hosts", nargs=-1, metavar="[HOST...]")
@files_option
@output_options
@cluster_options
def add(target: Target, output: Output, tags: str, hosts: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Give TAGs to HOSTs. For operators."""
    chosen, named = _tags(tags), all_hosts(hosts, files)
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.tag_agents(chosen, named)
    print_changed(output, view, f"tagged {', '.join(chosen)}", "tagged so before")


@tag.command("remove", cls=Action, examples="  galaxy tag remove ssd h2\n")
@click.argument("tags", metavar="TAG[,TAG...]")
@click.argument("hosts", nargs=-1, metavar="[HOST...]")
@files_option
@output_options
@cluster_options
def untag(target: Target, output: Output, tags: str, hosts: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Take TAGs from HOSTs. For operators."""
    chosen, named = _tags(tags), all_hosts(hosts, files)
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.untag_agents(chosen, named)
    print_changed(output, view, f"without {', '.join(chosen)} now", "not tagged so")


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(part for part in text.split(",") if part)
    if not tags:
        raise UsageError("no tag is given", hint="galaxy tag add TAG HOST")
    return tags
