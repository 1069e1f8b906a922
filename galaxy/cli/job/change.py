"""``galaxy job stop|start|remove|recover``: request a change, and follow it until it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from galaxy.cli.job.follow import follow, is_stuck, settled_line
from galaxy.cli.job.run import follow_until_running, print_warnings
from galaxy.cli.lazy import Action
from galaxy.cli.options import (
    Duration,
    Target,
    any_job_argument,
    cluster_options,
    complete,
    job_argument,
    pod_names,
)
from galaxy.cli.output import print_err, print_out
from galaxy.errors import DONE, NOT_ALL_RUNNING, NotFound, UsageError
from galaxy.model.api.jobs import Accepted
from galaxy.model.api.views import JobView
from galaxy.units import counted

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

F = TypeVar("F", bound=Callable[..., Any])


def follow_options(function: F) -> F:
    """Add --detach, --timeout and --quiet."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print only the outcome."),
        click.option(
            "--timeout", type=Duration(), default="5m", show_default=True, help="Follow no longer than this."
        ),
        click.option("-d", "--detach", is_flag=True, help="Return when the request is accepted."),
    ):
        function = option(function)
    return function


@click.command(cls=Action, examples="  galaxy job stop web\n")
@job_argument
@follow_options
@cluster_options
def stop(target: Target, job: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Stop a job's programs. Its containers stay, so that `start` is fast."""
    with target.open() as galaxy:
        accepted = galaxy.stop(job)
        return _follow_stop(galaxy, accepted, "stopping", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(cls=Action, examples="  galaxy job start web\n")
@job_argument
@follow_options
@cluster_options
def start(target: Target, job: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Start a stopped job's programs in their containers."""
    with target.open() as galaxy:
        accepted = galaxy.start(job)
        return _follow_start(galaxy, accepted, "starting", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(
    cls=Action,
    examples="""\
  galaxy job remove web
  galaxy job remove --yes web      without asking
""",
)
@any_job_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
@follow_options
@cluster_options
def remove(target: Target, job: str, yes: bool, detach: bool, timeout: float, quiet: bool) -> int:
    """Stop a job's programs, then remove the job and its containers."""
    with target.open() as galaxy:
        if not yes:
            _confirm_removal(galaxy.job(job))
        accepted = galaxy.remove(job)
        return _follow_stop(galaxy, accepted, "removing", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(
    cls=Action,
    examples="""\
  galaxy job recover web           every failed pod of the job
  galaxy job recover web --pod 2   this pod, in any state
""",
)
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@click.option("--pod", "-I", default="", metavar="POD", help="Only this pod: its index or its id.")
@follow_options
@cluster_options
def recover(target: Target, name: str, pod: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Deploy failed pods again."""
    with target.open() as galaxy:
        target_name = f"{name}.{pod}" if pod.isdecimal() else pod or name
        accepted = galaxy.recover(target_name)
        return _follow_start(galaxy, accepted, "recovering", detach=detach, timeout_s=timeout, quiet=quiet)


def _confirm_removal(view: JobView) -> None:
    """Ask for confirmation on the terminal.

    Raises:
        UsageError: there is no terminal, or the answer is no.
    """
    summary = view.summary
    pods = counted(len(view.pods), "pod")
    action = f"remove {summary.type} job {summary.name} ({summary.job}) with {pods}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = f"galaxy job remove --yes {summary.name}"
        raise UsageError(f"will not {action} without confirmation", hint=hint)
    if not click.confirm(f"{action}?", err=True):
        raise UsageError("nothing was removed")


def _follow_start(
    galaxy: Galaxy, accepted: Accepted, what: str, *, detach: bool, timeout_s: float, quiet: bool
) -> int:
    """Follow a job until it runs."""
    print_warnings(accepted)
    if detach:
        print_out(f"{accepted.job} {what}")
        return DONE
    if not quiet:
        print_err(f"{accepted.job} {what}")
    return follow_until_running(galaxy, accepted, timeout_s=timeout_s, quiet=quiet, known=True)


def _follow_stop(
    galaxy: Galaxy, accepted: Accepted, what: str, *, detach: bool, timeout_s: float, quiet: bool
) -> int:
    """Follow a job until it is stopped or removed."""
    print_warnings(accepted)
    if detach:
        print_out(f"{accepted.job} {what}")
        return DONE
    if not quiet:
        print_err(f"{accepted.job} {what}")

    def is_over(view: JobView) -> bool:
        if what == "removing":
            return view.settled and view.summary.is_over
        return view.settled or is_stuck(view)

    try:
        if quiet:
            view: JobView | None = galaxy.wait(accepted.job, timeout_s=timeout_s, until=is_over)
        else:
            view = follow(galaxy, accepted.job, timeout_s=timeout_s, until=is_over, known=True)
    except NotFound:
        if what != "removing":
            raise
        print_out(f"{accepted.job} removed")
        return DONE
    if view is None or not is_over(view):
        if view is not None:
            print_err(f"{accepted.job} is still {view.summary.state}; stopped following")
        return NOT_ALL_RUNNING
    print_out(f"{accepted.job} removed" if what == "removing" else settled_line(view))
    return DONE
