"""``galaxy safemode``: show, enter and leave it. ResMan answers, so AppMaster is not needed."""

from __future__ import annotations

import time

import click

from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_age, one_line, print_err, print_out
from galaxy.model.api.safemode import SafeModeView

EXAMPLES = """\
  galaxy safemode status
  galaxy safemode enter --reason "the switch of rack 4 is replaced"
  galaxy safemode leave
"""


@click.group(cls=LazyGroup, examples=EXAMPLES)
def safemode() -> None:
    """Show, enter and leave safe mode, in which ResMan neither places nor evicts containers.

    All of it also works while no AppMaster runs; for operators.
    """


@safemode.command(
    "status", cls=Command, examples="  galaxy safemode status\n  galaxy safemode status -o json\n"
)
@output_options
@cluster_options
def status(target: Target, output: Output) -> None:
    """Show whether ResMan is in safe mode, since when and why."""
    with target.open() as galaxy:
        view = galaxy.safe_mode()
    _print(output, view)


@safemode.command("enter", cls=Action, examples='  galaxy safemode enter --reason "network maintenance"\n')
@click.option("--reason", default="", metavar="TEXT", help="Why, for everybody who looks.")
@output_options
@cluster_options
def enter(target: Target, output: Output, reason: str) -> None:
    """Enter safe mode. It stays until `galaxy safemode leave`, also when another ResMan leads."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.enter_safe_mode(reason=reason)
    _print(output, view)


@safemode.command("leave", cls=Action, examples="  galaxy safemode leave\n")
@output_options
@cluster_options
def leave(target: Target, output: Output) -> None:
    """Leave safe mode, also if ResMan entered it because hosts vanished: they count as lost then."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.leave_safe_mode()
    _print(output, view)
    if view.active and output.for_people:
        print_err("ResMan leaves the rest by itself once it knows which agents there are")


def _print(output: Output, view: SafeModeView) -> None:
    if not output.print_data(view, ["on" if view.active else "off"]):
        print_out(one_line(status_line(view, time.time())))


def status_line(view: SafeModeView, now_s: float) -> str:
    """Return the state of safe mode as one line."""
    if not view.active:
        return "Safe mode is off"
    reason = view.message.removeprefix("safe mode: ") or view.code
    return f"Safe mode is on for {format_age(view.since_s, now_s) or '0s'}: {reason}"
