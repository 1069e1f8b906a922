"""``galaxy safemode``: show whether ResMan is in safe mode. ResMan answers, so AppMaster is not needed."""

from __future__ import annotations

import time

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_age, one_line, print_out
from galaxy.model.api.safemode import SafeModeView


@click.group(cls=LazyGroup, examples="  galaxy safemode status\n")
def safemode() -> None:
    """Show whether ResMan is in safe mode, in which it neither places nor evicts containers."""


@safemode.command(
    "status", cls=Command, examples="  galaxy safemode status\n  galaxy safemode status -o json\n"
)
@output_options
@cluster_options
def status(target: Target, output: Output) -> None:
    """Show whether ResMan is in safe mode, since when and why; for operators.

    It also works while no AppMaster runs.
    """
    with target.open() as galaxy:
        view = galaxy.safe_mode()
    if not output.print_data(view, ["on" if view.active else "off"]):
        print_out(one_line(status_line(view, time.time())))


def status_line(view: SafeModeView, now_s: float) -> str:
    """Return the state of safe mode as one line."""
    if not view.active:
        return "Safe mode is off"
    return f"Safe mode is on for {format_age(view.since_s, now_s) or '0s'}: {view.message or view.code}"
