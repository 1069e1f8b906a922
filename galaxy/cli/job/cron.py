"""``galaxy job cron``: the line of a crontab that runs a batch job, bound to its cluster."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options
from galaxy.cli.output import print_out
from galaxy.client.contexts import ChosenCluster, find_cluster
from galaxy.client.job_loading import load
from galaxy.errors import UsageError
from galaxy.model.jobspec.spec import JobType

SCHEDULE = "15 3 * * *"


@click.command(
    cls=Command,
    examples="""\
  galaxy job cron nightly.yaml                          every night at 3:15
  galaxy job cron nightly.yaml --schedule '0 * * * *'   every hour
  (crontab -l; galaxy job cron nightly.yaml) | crontab -
""",
)
@click.argument("file", type=click.Path())
@click.option("--schedule", default=SCHEDULE, metavar="FIELDS", show_default=True, help="When to run it.")
@cluster_options
def cron(target: Target, file: str, schedule: str) -> None:
    """Print the line for `crontab -e` that runs the batch job in FILE on this cluster.

    All paths are complete, because cron knows neither your PATH nor your folder, and the line names
    the cluster. The exit code is the job's own, or 3 if the run before it has not ended yet.
    """
    chosen = find_cluster(url=target.url, dir=target.dir, context=target.context)
    print_out(crontab_line(Path(file), _named(chosen), schedule))


def crontab_line(file: Path, cluster: str, schedule: str = SCHEDULE) -> str:
    """Return the line that runs ``file`` on ``cluster`` (an option), at the times of ``schedule``.

    Raises:
        SpecError: the file is wrong.
        UsageError: it is not a batch job, or the schedule has not five fields.
    """
    if file.name == "-":
        raise UsageError("cron has no standard input; name a job file")
    spec, _ = load(str(file))
    if spec.type is not JobType.BATCH:
        raise UsageError(f'cron runs batch jobs; "{spec.name}" is a {spec.type.value}')
    if len(schedule.split()) != 5 and not schedule.startswith("@"):
        raise UsageError(f'"{schedule}" is not a schedule', hint=f"--schedule '{SCHEDULE}', or @daily")
    command = f"{galaxy_path()} job run {cluster} --wait {shlex.quote(str(file.absolute()))}"
    # In a crontab % ends the command.
    return f"{schedule} {command.replace('%', chr(92) + '%')}"


def in_folder(directory: str) -> str:
    """Return the option that names the cluster of a folder."""
    return f"--dir {shlex.quote(directory)}"


def galaxy_path() -> str:
    """Return the complete path of this installation's ``galaxy`` command, or how to run it without one."""
    own = Path(sys.executable).with_name("galaxy")
    path = str(own) if own.exists() else shutil.which("galaxy")
    return shlex.quote(path) if path else f"{shlex.quote(sys.executable)} -P -m galaxy.cli.main"


def _named(chosen: ChosenCluster) -> str:
    """Return the option that names ``chosen`` wherever the command runs.

    Raises:
        UsageError: it is named by a URL, which does not belong on a command line.
    """
    if chosen.dir:
        return in_folder(chosen.dir)
    if chosen.context:
        return f"--context {shlex.quote(chosen.context)}"
    raise UsageError(
        "a crontab line cannot name the cluster by its URL, which has a password",
        hint="galaxy context add NAME --redis-file FILE, then --context NAME",
    )
