"""``galaxy job``: the group; its commands are imported when they are used."""

from __future__ import annotations

import click

from galaxy.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "run": LazyCommand("galaxy.cli.job.run:run", "Run a job and follow it."),
    "update": LazyCommand("galaxy.cli.job.run:update", "Move a job to a new spec, a few pods at a time."),
    "list": LazyCommand("galaxy.cli.job.show:list_", "List jobs."),
    "show": LazyCommand("galaxy.cli.job.show:show", "Show everything about one job."),
    "stop": LazyCommand("galaxy.cli.job.change:stop", "Stop its programs; containers stay."),
    "start": LazyCommand("galaxy.cli.job.change:start", "Start them again."),
    "remove": LazyCommand("galaxy.cli.job.change:remove", "Remove a job and its containers."),
    "recover": LazyCommand("galaxy.cli.job.change:recover", "Deploy failed pods anew."),
    "validate": LazyCommand("galaxy.cli.job.files:validate", "Check a job file.", "Job files"),
    "init": LazyCommand(
        "galaxy.cli.job.files:init", "Write a commented job file to begin with.", "Job files"
    ),
    "import": LazyCommand("galaxy.cli.job.files:import_", "Read a job file of Galaxy 3.", "Job files"),
    "schema": LazyCommand("galaxy.cli.job.files:schema", "Print the JSON Schema of job files.", "Job files"),
}

ALIASES = {
    "submit": "run", "ls": "list", "json": "init", "template": "init", "rm": "remove", "kill": "remove",
    "check": "validate", "describe": "show",
}  # fmt: skip
"""The ancestor's words, and others'."""

EXAMPLES = """\
  galaxy job init web > job.yaml       a file to begin with
  galaxy job run job.yaml              run it, and watch it come up
  galaxy job update job.yaml           a new revision, in the same containers
  galaxy job show web                  pods, programs, endpoints, events
  galaxy job run --wait batch.yaml     a batch job to its end, with its exit code
"""


@click.group(cls=LazyGroup, lazy=COMMANDS, aliases=ALIASES, examples=EXAMPLES)
def job() -> None:
    """Run, list, show, update, stop and remove jobs."""
