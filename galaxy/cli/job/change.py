"""``galaxy job stop|start|remove|recover``: ask for a change, and follow it until it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from galaxy.cli.job.follow import ENDED_STATES, follow, is_stuck, settled_line
from galaxy.cli.job.run import follow_until_running, print_warnings
from galaxy.cli.lazy import Command
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
from galaxy.model.api.jobs import Done
from galaxy.model.api.views import JobView
from galaxy.units import counted

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

F = TypeVar("F", bound=Callable[..., Any])


def follow_options(function: F) -> F:
    """Add --detach, --timeout and --quiet."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print only how it came out."),
        click.option("--timeout", type=Duration(), default="5m", show_default=True, help="Watch no longer."),
        click.option("-d", "--detach", is_flag=True, help="Return when it is accepted."),
    ):
        function = option(function)
    return function


@click.command(cls=Command, examples="  galaxy job stop web\n")
@job_argument
@follow_options
@cluster_options
def stop(target: Target, job: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Stop a job's programs. Its containers stay, so that `start` is quick."""
    with target.open() as galaxy:
        done = galaxy.stop(job)
        return _watch(galaxy, done, "stopping", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(cls=Command, examples="  galaxy job start web\n")
@job_argument
@follow_options
@cluster_options
def start(target: Target, job: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Start a stopped job's programs, in the containers they had."""
    with target.open() as galaxy:
        done = galaxy.start(job)
        return _come_up(galaxy, done, "starting", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(
    cls=Command,
    examples="""\
  galaxy job remove web
  galaxy job remove --yes web      without asking
""",
)
@any_job_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@follow_options
@cluster_options
def remove(target: Target, job: str, yes: bool, detach: bool, timeout: float, quiet: bool) -> int:
    """Stop a job's programs, then remove the job and its containers."""
    with target.open() as galaxy:
        if not yes:
            _confirm_removal(galaxy.job(job))
        done = galaxy.remove(job)
        return _watch(galaxy, done, "removing", detach=detach, timeout_s=timeout, quiet=quiet)


@click.command(
    cls=Command,
    examples="""\
  galaxy job recover web           every failed pod of it
  galaxy job recover web --pod 2   this one, whatever its state
""",
)
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@click.option("--pod", "-I", default="", metavar="POD", help="Only this pod: its index or its id.")
@follow_options
@cluster_options
def recover(target: Target, name: str, pod: str, detach: bool, timeout: float, quiet: bool) -> int:
    """Deploy failed pods anew."""
    with target.open() as galaxy:
        one = f"{name}.{pod}" if pod.isdecimal() else pod or name
        done = galaxy.recover(one)
        return _come_up(galaxy, done, "recovering", detach=detach, timeout_s=timeout, quiet=quiet)


def _confirm_removal(view: JobView) -> None:
    """Ask on a terminal; elsewhere --yes is needed.

    Raises:
        UsageError: nobody can be asked, or the answer is no.
    """
    summary = view.summary
    pods = counted(len(view.pods), "pod")
    question = f"remove {summary.type} job {summary.name} ({summary.job}) with {pods}?"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"will not {question[:-1]} unasked", hint=f"galaxy job remove --yes {summary.name}")
    if not click.confirm(f"{question}", err=True):
        raise UsageError("nothing was removed")


def _come_up(galaxy: Galaxy, done: Done, what: str, *, detach: bool, timeout_s: float, quiet: bool) -> int:
    print_warnings(done)
    if detach:
        print_out(f"{done.job} {what}")
        return DONE
    if not quiet:
        print_err(f"{done.job} {what}")
    return follow_until_running(galaxy, done, timeout_s=timeout_s, quiet=quiet, known=True)


def _watch(galaxy: Galaxy, done: Done, what: str, *, detach: bool, timeout_s: float, quiet: bool) -> int:
    """Follow a job until it is stopped or gone."""
    print_warnings(done)
    if detach:
        print_out(f"{done.job} {what}")
        return DONE
    if not quiet:
        print_err(f"{done.job} {what}")

    def over(view: JobView) -> bool:
        if what == "removing":
            return view.settled and view.summary.state in ENDED_STATES
        return view.settled or is_stuck(view)

    try:
        if quiet:
            view: JobView | None = galaxy.wait(done.job, timeout_s=timeout_s, until=over)
        else:
            view = follow(galaxy, done.job, timeout_s=timeout_s, until=over, known=True)
    except NotFound:
        if what != "removing":
            raise
        print_out(f"{done.job} removed")
        return DONE
    if view is None or not over(view):
        if view is not None:
            print_err(f"{done.job} is {view.summary.state} still; stopped watching")
        return NOT_ALL_RUNNING
    print_out(f"{done.job} removed" if what == "removing" else settled_line(view))
    return DONE
