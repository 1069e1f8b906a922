"""``galaxy job stop|start|remove|recover``: request changes, and follow them until they are done."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Add --detach, --timeout and --quiet; the command gets them as ``following``."""

    @click.option("-d", "--detach", is_flag=True, help="Return when the request is accepted.")
    @click.option(
        "--timeout", type=Duration(), default="5m", show_default=True, help="Follow no longer than this."
    )
    @click.option("-q", "--quiet", is_flag=True, help="Print only the outcome.")
    @functools.wraps(function)
    def command(*args: Any, detach: bool, timeout: float, quiet: bool, **kwargs: Any) -> Any:
        following = Following(detach=detach, timeout_s=timeout, quiet=quiet)
        return function(*args, following=following, **kwargs)

    return command  # type: ignore[return-value]


@click.command(cls=Action, examples="  galaxy job stop web\n  galaxy job stop web api   several jobs\n")
@jobs_argument
@follow_options
@cluster_options
def stop(target: Target, jobs: tuple[str, ...], following: Following) -> int:
    """Stop jobs' programs. Their containers stay, so that `start` is fast."""
    with target.open_to_change(quiet=following.quiet) as galaxy:
        return change_each(jobs, galaxy.stop, lambda job: following.until_over(galaxy, job, "stopping"))


@click.command(cls=Action, examples="  galaxy job start web\n  galaxy job start web api   several jobs\n")
@jobs_argument
@follow_options
@cluster_options
def start(target: Target, jobs: tuple[str, ...], following: Following) -> int:
    """Start stopped jobs' programs in their containers."""
    with target.open_to_change(quiet=following.quiet) as galaxy:
        return change_each(jobs, galaxy.start, lambda job: following.until_running(galaxy, job, "starting"))


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
def remove(target: Target, jobs: tuple[str, ...], yes: bool, following: Following) -> int:
    """Stop jobs' programs, then remove the jobs and their containers."""
    with target.open_to_change(quiet=following.quiet) as galaxy:
        if not yes:
            # A name that does not exist is refused before anything is removed.
            views = [galaxy.job(job) for job in jobs]
            hint = f"galaxy job remove --yes {shlex.join(jobs)}"
            confirm([_removal(view) for view in views], hint=hint)
        return change_each(jobs, galaxy.remove, lambda job: following.until_over(galaxy, job, "removing"))


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
def recover(target: Target, name: str, pod: str, following: Following) -> int:
    """Deploy failed pods again."""
    with target.open_to_change(quiet=following.quiet) as galaxy:
        accepted = galaxy.recover(f"{name}.{pod}" if pod.isdecimal() else pod or name)
        return following.until_running(galaxy, accepted, "recovering")


@dataclass(frozen=True, kw_only=True)
class Following:
    """How a command follows the change that it has asked for. Each method returns an exit code."""

    detach: bool
    timeout_s: float
    quiet: bool

    def until_running(self, galaxy: Galaxy, accepted: Accepted, what: str) -> int:
        """Follow a job until it runs. ``what`` names the change, such as ``starting``."""
        if not self._begins(accepted, what):
            return DONE
        return follow_until_running(galaxy, accepted, timeout_s=self.timeout_s, quiet=self.quiet, known=True)

    def until_over(self, galaxy: Galaxy, accepted: Accepted, what: str) -> int:
        """Follow a job until it is stopped, or removed if ``what`` is ``removing``."""
        if not self._begins(accepted, what):
            return DONE

        def is_over(view: JobView) -> bool:
            if what == "removing":
                return view.settled and view.summary.is_over
            return view.settled or is_stuck(view)

        try:
            if self.quiet:
                view: JobView | None = galaxy.wait(accepted.job, timeout_s=self.timeout_s, until=is_over)
            else:
                view = follow(galaxy, accepted.job, timeout_s=self.timeout_s, until=is_over, known=True)
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

    def _begins(self, accepted: Accepted, what: str) -> bool:
        """Say what begins, and return whether to follow it."""
        print_warnings(accepted)
        if self.detach:
            print_out(f"{accepted.job} {what}")
        elif not self.quiet:
            print_err(f"{accepted.job} {what}")
        return not self.detach


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
