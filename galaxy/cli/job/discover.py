"""``galaxy discover``: the endpoints of a service."""

from __future__ import annotations

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, complete, output_options, service_names
from galaxy.cli.output import Output, print_err
from galaxy.cli.tables import endpoint_rows


@click.command(
    cls=Command,
    examples="""\
  galaxy discover hello              list healthy endpoints
  galaxy discover hello --all        include unhealthy and draining ones
  galaxy discover hello -o json      a list with pod, address, port, state
  galaxy discover hello -o name      address:port, one per line
""",
)
@click.argument("service", shell_complete=complete(service_names))
@click.option("--all/--healthy", "every", default=False, help="Show all endpoints, or only healthy ones.")
@output_options
@cluster_options
def discover(target: Target, output: Output, service: str, every: bool) -> None:
    """Show the endpoints of a service."""
    with target.open() as galaxy:
        endpoints = galaxy.discover(service, all=every)
    if output.print_data(endpoints, [f"{e.address}:{e.port}" for e in endpoints]):
        return
    if not endpoints:
        print_err(f"no endpoint of {service}" + ("" if every else " is healthy; --all shows the others"))
        return
    output.print_table(*endpoint_rows(endpoints))
