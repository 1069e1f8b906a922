"""``galaxy job stop|start|remove|recover``: request changes, and follow them until they are done."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from galaxy.cli.confirm import confirm, yes_option
from galaxy.cli.job.follow import follow, is_stuck, settled_line
from galaxy.cli.job.run import follow_until_running, print_warnings
from galaxy.cli.lazy import Action
from galaxy.cli.options import (
    Duration,
    Target,
    all_job_names,
    cluster_options,
    complete,
    job_names,
    pod_names,
)
from galaxy.cli.output import print_err, print_out
from galaxy.errors import DONE, FAILED, NOT_ALL_RUNNING, REFUSED, USAGE, GalaxyError, NotFound
from galaxy.model.api.jobs import Accepted
from galaxy.model.api.views import JobView
from galaxy.units import counted

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

F = TypeVar("F", bound=Callable[..., Any])

WORST_FIRST = (FAILED, USAGE, REFUSED, NOT_ALL_RUNNING, DONE)
"""Which of several exit codes a command returns: the first of these that occurred."""

jobs_argument = click.argument(
    "jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete(job_names)
)


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


@click.command(cls=Action, examples="  galaxy job stop web\n  galaxy job stop web api   several jobs\n")
@jobs_argument
@follow_options
@cluster_options
def stop(target: Target, jobs: tuple[str, ...], detach: bool, timeout: float, quiet: bool) -> int:
    """Stop jobs' programs. Their containers stay, so that `start` is fast."""
    with target.open_to_change(quiet=quiet) as galaxy:

        def watch(accepted: Accepted) -> int:
            return _follow_stop(galaxy, accepted, "stopping", detach=detach, timeout_s=timeout, quiet=quiet)

        return change_each(jobs, lambda job: galaxy.stop(job), watch)


@click.command(cls=Action, examples="  galaxy job start web\n  galaxy job start web api   several jobs\n")
@jobs_argument
@follow_options
@cluster_options
def start(target: Target, jobs: tuple[str, ...], detach: bool, timeout: float, quiet: bool) -> int:
    """Start stopped jobs' programs in their containers."""
    with target.open_to_change(quiet=quiet) as galaxy:

        def watch(accepted: Accepted) -> int:
            return _follow_start(galaxy, accepted, "starting", detach=detach, timeout_s=timeout, quiet=quiet)

        return change_each(jobs, lambda job: galaxy.start(job), watch)


@click.command(
    cls=Action,
    examples="""\
  galaxy job remove web
  galaxy job remove web api        several jobs; each is answered for
  galaxy job remove --yes web      without asking
""",
)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete(all_job_names))
@yes_option
@follow_options
@cluster_options
def remove(
    target: Target, jobs: tuple[str, ...], yes: bool, detach: bool, timeout: float, quiet: bool
) -> int:
    """Stop jobs' programs, then remove the jobs and their containers."""
    with target.open_to_change(quiet=quiet) as galaxy:
        if not yes:
            # A name that does not exist is refused before anything is removed.
            views = [galaxy.job(job) for job in jobs]
            hint = f"galaxy job remove --yes {shlex.join(jobs)}"
            confirm([_removal(view) for view in views], hint=hint)

        def watch(accepted: Accepted) -> int:
            return _follow_stop(galaxy, accepted, "removing", detach=detach, timeout_s=timeout, quiet=quiet)

        return change_each(jobs, lambda job: galaxy.remove(job), watch)


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
    with target.open_to_change(quiet=quiet) as galaxy:
        target_name = f"{name}.{pod}" if pod.isdecimal() else pod or name
        accepted = galaxy.recover(target_name)
        return _follow_start(galaxy, accepted, "recovering", detach=detach, timeout_s=timeout, quiet=quiet)


def change_each(
    names: Sequence[str], ask: Callable[[str], Accepted], watch: Callable[[Accepted], int]
) -> int:
    """Ask for a change of every name, then follow each that was accepted; return the worst exit code.

    Each name is answered for: a refusal of one does not keep the others from being changed.
    """
    if len(names) == 1:
        return watch(ask(names[0]))
    codes = [DONE]
    accepted: dict[str, Accepted] = {}
    for name in dict.fromkeys(names):
        try:
            one = ask(name)
            accepted[one.job] = one
        except GalaxyError as error:
            print_err(f"galaxy: {error}")
            codes.append(error.exit_code)
    for one in accepted.values():
        try:
            codes.append(watch(one))
        except GalaxyError as error:
            print_err(f"galaxy: {error}")
            codes.append(error.exit_code)
    return min(codes, key=WORST_FIRST.index)


def _removal(view: JobView) -> str:
    summary = view.summary
    return f"remove {summary.type} job {summary.name} ({summary.job}) with {counted(len(view.pods), 'pod')}"


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
