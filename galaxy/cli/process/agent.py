"""``galaxy agent``: run one, list them, show one."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import click

from galaxy.cli.lazy import LazyCommand, LazyGroup
from galaxy.cli.options import UidRange
from galaxy.cli.process.leaders import process_options
from galaxy.client.cluster_file import default_dir
from galaxy.client.login_urls import join_url
from galaxy.container.kernel.uid_ranges import UIDS_DEFAULT
from galaxy.errors import UsageError
from galaxy.ids import HOST

SUBCOMMANDS = {
    "list": LazyCommand("galaxy.cli.cluster.agents:list_", "List agents."),
    "show": LazyCommand("galaxy.cli.cluster.agents:show", "Show one agent."),
}

EXAMPLES = """\
  galaxy agent list                                  agents of the cluster
  galaxy agent show h1                               one of them
  galaxy agent --redis URL --pool main               join a cluster with this host
  galaxy agent --name h2 --state DIR --cgroup-root galaxy-h2 --ports 21000-21999
                                                     a second agent on one machine
"""


class PortRangeParam(click.ParamType[tuple[int, int]]):
    """``A-B``, both ends included."""

    name = "A-B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value)
        low, high = (int(match[1]), int(match[2])) if match else (0, -1)
        if not 1024 <= low <= high <= 65535:
            self.fail(f"{value!r} is not a range of ports; write it like 20000-29999", param, ctx)
        return low, high


@click.group(
    cls=LazyGroup, lazy=SUBCOMMANDS, aliases={"ls": "list", "list_agents": "list"}, examples=EXAMPLES,
    invoke_without_command=True,
)  # fmt: skip
@process_options
@click.option("--name", metavar="NAME", help="Name of this host in the cluster [its host name].")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="DIR", help="Where the agent keeps its state."
)
@click.option("--pool", default="main", show_default=True, metavar="POOL", help="The pool it belongs to.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of it; may be given again.")
@click.option(
    "--ports", type=PortRangeParam(), default="20000-29999", show_default=True, help="Dynamic ports."
)
@click.option("--cgroup-root", default="galaxy", show_default=True, metavar="NAME", help="Its own cgroup.")
@click.option(
    "--uids",
    type=UidRange(),
    default=f"{UIDS_DEFAULT[0]}-{UIDS_DEFAULT[1]}",
    show_default=True,
    help="Kernel users for containers, one each.",
)
@click.option(
    "--run-user", default="", metavar="USER", help="One account that all programs run as instead."
)  # fmt: skip
@click.option(
    "--package-root", "roots", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Where file:// packages may come from; may be given again.",
)  # fmt: skip
@click.option("--address", default="", metavar="ADDRESS", help="Where its containers' ports are reached.")
@click.option(
    "--mode", type=click.Choice(["auto", "full", "userns", "process"]), default="auto", show_default=True,
    help="How containers are made.",
)  # fmt: skip
@click.option("--containers-max", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--ephemeral", is_flag=True, help="Destroy every container when the agent ends.")
@click.pass_context
def agent(
    ctx: click.Context, /, redis: str | None, directory: str | None, log_level: str, name: str | None,
    state: Path | None, ports: tuple[int, int], roots: tuple[Path, ...], tags: tuple[str, ...], **chosen: Any,
) -> int | None:  # fmt: skip
    """Run the agent of this host; or list and show agents.

    It stands for this machine: makes, keeps and reports containers. Its containers live on
    when it ends, and it finds them again.
    """
    if ctx.invoked_subcommand is not None:
        return None
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
