"""``galaxy discover``: where a service answers."""

from __future__ import annotations

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, complete, output_options, service_names
from galaxy.cli.output import Output, print_err
from galaxy.cli.tables import endpoint_rows


@click.command(
    cls=Command,
    examples="""\
  galaxy discover hello              healthy endpoints
  galaxy discover hello --all        also those that are unhealthy or draining
  galaxy discover hello -o json      a list with pod, address, port, state
  galaxy discover hello -o name      address:port, one a line
""",
)
@click.argument("service", shell_complete=complete(service_names))
@click.option("--all/--healthy", "every", default=False, help="With all states, or healthy ones only.")
@output_options
@cluster_options
def discover(target: Target, output: Output, service: str, every: bool) -> None:
    """Show where a service answers."""
    with target.open() as galaxy:
        endpoints = galaxy.discover(service, all=every)
    if output.print_data(endpoints, [f"{e.address}:{e.port}" for e in endpoints]):
        return
    if not endpoints:
        print_err(f"{service} answers nowhere" + ("" if every else " that is healthy; --all shows the rest"))
        return
    output.print_table(*endpoint_rows(endpoints))
