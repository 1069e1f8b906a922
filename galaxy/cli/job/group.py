"""``galaxy job``: the group; its commands are imported on use."""

from __future__ import annotations

import click

from galaxy.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "run": LazyCommand("galaxy.cli.job.run:run", "Run a job and follow it."),
    "update": LazyCommand("galaxy.cli.job.run:update", "Move a job to a new spec, a few pods at a time."),
    "list": LazyCommand("galaxy.cli.job.show:list_", "List jobs."),
    "show": LazyCommand("galaxy.cli.job.show:show", "Show everything about one job."),
    "stop": LazyCommand("galaxy.cli.job.change:stop", "Stop a job's programs; its containers stay."),
    "start": LazyCommand("galaxy.cli.job.change:start", "Start the programs of a stopped job."),
    "remove": LazyCommand("galaxy.cli.job.change:remove", "Remove a job and its containers."),
    "recover": LazyCommand("galaxy.cli.job.change:recover", "Deploy failed pods again."),
    "cron": LazyCommand("galaxy.cli.job.cron:cron", "Print the crontab line that runs a batch job."),
    "validate": LazyCommand("galaxy.cli.job.files:validate", "Check a job file.", "Job files"),
    "init": LazyCommand(
        "galaxy.cli.job.files:init", "Write a commented job file to start from.", "Job files"
    ),
    "import": LazyCommand("galaxy.cli.job.files:import_", "Convert a job file of Galaxy 3.", "Job files"),
    "schema": LazyCommand("galaxy.cli.job.files:schema", "Print the JSON Schema of job files.", "Job files"),
}

ALIASES = {
    "submit": "run", "ls": "list", "json": "init", "template": "init", "rm": "remove", "kill": "remove",
    "check": "validate", "describe": "show",
}  # fmt: skip
"""Names of Galaxy 3, and names that other systems use."""

EXAMPLES = """\
  galaxy job init web > job.yaml       write a job file to start from
  galaxy job run job.yaml              run it, and follow it until it is healthy
  galaxy job update job.yaml           move it to a new revision, in the same containers
  galaxy job show web                  show pods, programs, endpoints, events
  galaxy job run --wait batch.yaml     run a batch job to its end, and exit with its code
"""


@click.group(cls=LazyGroup, lazy=COMMANDS, aliases=ALIASES, examples=EXAMPLES)
def job() -> None:
    """Run, list, show, update, stop and remove jobs."""
