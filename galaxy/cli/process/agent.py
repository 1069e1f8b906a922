"""``galaxy agent``: run the agent of this host; list, show and manage agents."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from galaxy.cli.lazy import LazyCommand, LazyGroup
from galaxy.cli.options import PORT_RANGE, UID_RANGE
from galaxy.cli.process.leaders import process_options, require_cluster
from galaxy.client.cluster_file import default_dir
from galaxy.client.login_urls import join_url
from galaxy.container.kernel.uid_ranges import UIDS_DEFAULT
from galaxy.errors import UsageError
from galaxy.ids import HOST

SUBCOMMANDS = {
    "list": LazyCommand("galaxy.cli.cluster.agents:list_", "List agents."),
    "show": LazyCommand("galaxy.cli.cluster.agents:show", "Show one agent."),
    "add": LazyCommand("galaxy.cli.cluster.agent_changes:add", "Register a host before it joins."),
    "remove": LazyCommand("galaxy.cli.cluster.agent_changes:remove", "Forget hosts that do not return."),
    "cordon": LazyCommand("galaxy.cli.cluster.agent_changes:cordon", "Place nothing new on hosts."),
    "uncordon": LazyCommand("galaxy.cli.cluster.agent_changes:uncordon", "Place containers there again."),
    "drain": LazyCommand("galaxy.cli.cluster.drain:drain", "Move everything away from hosts."),
    "offline": LazyCommand("galaxy.cli.cluster.drain:offline", "Drain hosts and take them out of service."),
    "online": LazyCommand("galaxy.cli.cluster.drain:online", "Put hosts back into service."),
    "label": LazyCommand("galaxy.cli.cluster.agent_changes:label", "Set and remove labels of hosts."),
}


class ListByDefault(LazyGroup):
    """A group that lists when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListByDefault, lazy=SUBCOMMANDS, aliases={"ls": "list"})
def agents() -> None:
    """List and show agents."""


EXAMPLES = """\
  galaxy agent list                                  list the agents of the cluster
  galaxy agent show h1                               show one of them
  galaxy agent --redis-file FILE --pool main         join a cluster with this host
  galaxy agent --name h2 --state DIR --cgroup-root galaxy-h2 --ports 21000-21999
                                                     run a second agent on one machine
"""


@click.group(
    cls=LazyGroup, lazy=SUBCOMMANDS, aliases={"ls": "list", "list_agents": "list"}, examples=EXAMPLES,
    invoke_without_command=True,
)  # fmt: skip
@process_options
@click.option("--name", metavar="NAME", help="Name of this host in the cluster [the host name].")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="The agent's state directory.")
@click.option("--pool", default="main", show_default=True, metavar="POOL", help="The agent's pool.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the agent; may be repeated.")
@click.option(
    "--ports", type=PORT_RANGE, default="20000-29999", show_default=True, help="Dynamic ports of containers."
)
@click.option(
    "--cgroup-root", default="galaxy", show_default=True, metavar="NAME", help="The agent's cgroup."
)
@click.option(
    "--uids",
    type=UID_RANGE,
    default=f"{UIDS_DEFAULT[0]}-{UIDS_DEFAULT[1]}",
    show_default=True,
    help="User ids for containers, one each.",
)
@click.option(
    "--run-user", default="", metavar="USER", help="Run all programs as this account instead."
)  # fmt: skip
@click.option(
    "--package-root", "roots", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
    help="A folder from which file:// packages may come; may be repeated.",
)  # fmt: skip
@click.option(
    "--address", default="", metavar="ADDRESS", help="Address at which the ports of containers are reached."
)
@click.option(
    "--mode", type=click.Choice(["auto", "full", "userns", "process"]), default="auto", show_default=True,
    help="How containers are isolated.",
)  # fmt: skip
@click.option(
    "--containers-max",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Maximum number of containers at once.",
)
@click.option("--ephemeral", is_flag=True, help="Destroy every container when the agent ends.")
@click.pass_context
def agent(
    ctx: click.Context, /, redis: str | None, directory: str | None, log_level: str, name: str | None,
    state: Path | None, ports: tuple[int, int], roots: tuple[Path, ...], tags: tuple[str, ...], **chosen: Any,
) -> int | None:  # fmt: skip
    """Run the agent of this host; or list, show and manage agents.

    The agent creates and reports the containers of this machine. Containers keep running while
    no agent runs, and the next agent adopts them.
    """
    if ctx.invoked_subcommand is not None:
        return None
    require_cluster(
        redis, directory, "this host", "galaxy agent --redis-file FILE; `galaxy agent list` lists agents"
    )
    _require_options_at_a_terminal(ctx)
    from galaxy.agent.config import AgentConfig
    from galaxy.nexus.url import parse
    from galaxy.tasks.node import NodeOptions, run_agent

    host = name or socket.gethostname()
    if not HOST.fullmatch(host):
        raise UsageError(f'"{host}" is not a name for an agent', hint="--name NAME, letters and digits")
    url = join_url("agent", host, url=redis or "", dir=directory or "")
    folder = Path(directory) if directory else Path(os.environ.get("GALAXY_DIR") or default_dir())
    low, high = ports
    config = AgentConfig(
        name=host,
        state=(state or folder / "agent" / host).absolute(),
        tags=tags,
        ports_low=low,
        ports_high=high,
        package_roots=tuple(root.absolute() for root in roots) or (folder.absolute() / "packages",),
        redis_host=parse(url).hosts[0][0],
        **chosen,
    )
    return run_agent(NodeOptions(url=url, host=host, log_level=log_level), config)


def _require_options_at_a_terminal(ctx: click.Context) -> None:
    """Make sure that a person who types ``galaxy agent`` and means ``galaxy agents`` starts no process.

    Raises:
        UsageError: no option is given, and standard input is a terminal.
    """
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if not given and sys.stdin.isatty():
        raise UsageError(
            "`galaxy agent` without an option would join this host to the cluster that the environment names",
            hint=f"galaxy agent --name {socket.gethostname()}; `galaxy agent list` lists agents",
        )
