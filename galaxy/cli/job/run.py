"""``galaxy job run`` and ``galaxy job update``: send a spec, then follow the job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from galaxy.cli.job.follow import follow, is_stuck, print_outcome, settled_line
from galaxy.cli.job.package import print_upload
from galaxy.cli.lazy import Action
from galaxy.cli.options import Duration, Target, all_job_names, cluster_options, complete
from galaxy.cli.output import print_err, print_out
from galaxy.client.job_loading import load
from galaxy.errors import DONE, FAILED, NOT_ALL_RUNNING, REFUSED, Conflict, UsageError
from galaxy.model.api.jobs import Accepted
from galaxy.model.api.views import JobView
from galaxy.model.jobspec.spec import JobType
from galaxy.units import counted

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

TIMEOUT_S = 300.0


@click.command(
    cls=Action,
    examples="""\
  galaxy job run job.yaml                 run it, and follow it until it is healthy
  galaxy job run --detach job.yaml        return when it is accepted
  galaxy job run --wait --logs batch.yaml run a batch job to its end; print its output, exit with its code
  galaxy job init web | galaxy job run -  run a job from standard input
""",
)
@click.argument("file", required=False, type=click.Path(allow_dash=True))
@click.option("-f", "--file", "named", type=click.Path(allow_dash=True), hidden=True)
@click.option("-d", "--detach", is_flag=True, help="Return when the job is accepted.")
@click.option("--wait", is_flag=True, help="Follow a batch job to its end and return its exit code.")
@click.option("--logs", is_flag=True, help="With --wait: print its output when it has ended.")
@click.option("--timeout", type=Duration(), help="Follow it no longer than this [5m; no limit with --wait].")
@click.option("-q", "--quiet", is_flag=True, help="Print only the outcome.")
@click.option("--key", default="", metavar="KEY", help="Idempotency key: the same run under it is made once.")
@click.option(
    "-E", "--conflict-exit-code", type=click.IntRange(0, 255), metavar="N",
    help="Exit code when a job of this name still runs [3].",
)  # fmt: skip
@cluster_options
def run(
    target: Target, file: str | None, named: str | None, detach: bool, wait: bool, logs: bool,
    timeout: float | None, quiet: bool, key: str, conflict_exit_code: int | None,
) -> int:  # fmt: skip
    """Run the job that FILE describes, and follow it until all of its pods run.

    FILE is YAML, TOML or JSON; `-` is standard input. Ctrl-C stops following; the job keeps running.
    Exit codes: 0 all pods run or have finished, 1 failed, 2 accepted but not all pods run yet, 3 refused,
    also because a job of this name still runs, 64 invalid file or usage. A batch job that still runs may
    fail later: --wait follows it to its end, and exits with its exit code.
    """
    path = _path(file, named)
    if detach and (wait or logs):
        raise UsageError("--detach cannot be combined with --wait or --logs")
    spec, base = load(path)
    if wait and spec.type is not JobType.BATCH:
        raise UsageError(
            f'--wait is for batch jobs; "{spec.name}" is a {spec.type.value}', hint=f"galaxy job run {path}"
        )
    with target.open_to_change(quiet=quiet) as galaxy:
        try:
            galaxy.upload_progress = None if quiet else print_upload
            accepted = galaxy.submit(spec, key=key, base=base)
        except Conflict as error:
            if conflict_exit_code is None or error.exit_code != REFUSED:
                raise
            print_err(f"galaxy: {error}")
            return conflict_exit_code
        print_warnings(accepted)
        if detach:
            print_out(f"{accepted.job} accepted")
            return DONE
        if not quiet:
            print_err(f"{accepted.job} accepted: {counted(spec.deploy.replica, 'pod')}")
        if wait:
            return _follow_batch(galaxy, accepted, timeout_s=timeout, logs=logs, quiet=quiet)
        return follow_until_running(
            galaxy, accepted, timeout_s=TIMEOUT_S if timeout is None else timeout, quiet=quiet
        )


@click.command(
    cls=Action,
    examples="""\
  galaxy job update job.yaml              move to a new revision, `step` pods at a time
  galaxy job update job.yaml --job web    update the job called web
  galaxy job update --detach job.yaml     return when it is accepted
""",
)
@click.argument("file", required=False, type=click.Path(allow_dash=True))
@click.option("-f", "--file", "named", type=click.Path(allow_dash=True), hidden=True)
@click.option(
    "-i",
    "--job",
    default="",
    help="The job to update [the name in the file].",
    shell_complete=complete(all_job_names),
)
@click.option("-d", "--detach", is_flag=True, help="Return when the update is accepted.")
@click.option(
    "--timeout", type=Duration(), default="5m", show_default=True, help="Follow it no longer than this."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the outcome.")
@click.option(
    "--key", default="", metavar="KEY", help="Idempotency key: the same update under it is made once."
)
@cluster_options
def update(
    target: Target, file: str | None, named: str | None, job: str, detach: bool, timeout: float, quiet: bool,
    key: str,
) -> int:  # fmt: skip
    """Move a job to the spec in FILE, and follow the rollout until it is done.

    Pods keep their containers; changed limits apply to them without a restart where their hosts have
    room, and the other pods move. At most `step` pods are stopped at once, and they must be healthy
    before the next ones are stopped. Ctrl-C stops following; the rollout continues.
    """
    path = _path(file, named)
    spec, base = load(path)
    with target.open_to_change(quiet=quiet) as galaxy:
        galaxy.upload_progress = None if quiet else print_upload
        accepted = galaxy.update(spec, name=job, key=key, base=base)
        print_warnings(accepted)
        for effect in () if quiet else accepted.effects:
            print_err(effect)
        if detach:
            print_out(f"{accepted.job} revision {accepted.revision} accepted")
            return DONE
        if not quiet:
            print_err(f"{accepted.job} revision {accepted.revision} accepted")
        return follow_until_running(galaxy, accepted, timeout_s=timeout, quiet=quiet, known=True)


def follow_until_running(
    galaxy: Galaxy, accepted: Accepted, *, timeout_s: float, quiet: bool, known: bool = False
) -> int:
    """Follow a job until it is settled or stuck; return the exit code.

    With ``known`` the pods existed before, so their first states are not printed.
    """

    def is_over(view: JobView) -> bool:
        if view.summary.revision < accepted.revision:
            return False
        return view.settled or view.summary.is_over or is_stuck(view)

    if quiet:
        return print_outcome(galaxy, galaxy.wait(accepted.job, timeout_s=timeout_s, until=is_over))
    view = follow(galaxy, accepted.job, timeout_s=timeout_s, until=is_over, known=known)
    return print_outcome(galaxy, view)


def _follow_batch(
    galaxy: Galaxy, accepted: Accepted, *, timeout_s: float | None, logs: bool, quiet: bool
) -> int:
    """Follow a batch job until it has ended; return its exit code."""

    def is_over(view: JobView) -> bool:
        return view.summary.is_over

    if quiet:
        view: JobView | None = galaxy.wait(accepted.job, timeout_s=timeout_s, until=is_over)
    else:
        view = follow(galaxy, accepted.job, timeout_s=timeout_s, until=is_over)
    if view is None or not is_over(view):
        if view is not None:
            print_err(f"{accepted.job} is still {view.summary.state}; stopped following")
        return NOT_ALL_RUNNING
    if logs:
        with galaxy.logs(accepted.job, tail=-1) as stream:
            for chunk in stream:
                (sys.stderr if chunk.stream == "stderr" else sys.stdout).write(chunk.exact)
                if chunk.error:
                    print_err(f"galaxy: warning: {chunk.error}")
    if view.summary.state == "finished":
        print_err(settled_line(view))
        return DONE
    print_outcome(galaxy, view)
    return view.exit_code or FAILED  # It failed, or was removed before it ended.


def print_warnings(accepted: Accepted) -> None:
    """Print the warnings about an accepted change."""
    for warning in accepted.warnings:
        print_err(f"galaxy: warning: {warning}")


def _path(file: str | None, named: str | None) -> str:
    path = file or named
    if path is None:
        raise UsageError("no job file given", hint="galaxy job init > job.yaml")
    return path
