"""``galaxy job``: the group; its commands are imported when they are used."""

from __future__ import annotations

import click

from galaxy.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "run": Lazy("galaxy.cli.job.run:run", "Run a job and follow it."),
    "update": Lazy("galaxy.cli.job.run:update", "Move a job to a new spec, a few pods at a time."),
    "list": Lazy("galaxy.cli.job.show:list_", "List jobs."),
    "show": Lazy("galaxy.cli.job.show:show", "Show everything about one job."),
    "stop": Lazy("galaxy.cli.job.change:stop", "Stop its programs; containers stay."),
    "start": Lazy("galaxy.cli.job.change:start", "Start them again."),
    "remove": Lazy("galaxy.cli.job.change:remove", "Remove a job and its containers."),
    "recover": Lazy("galaxy.cli.job.change:recover", "Deploy failed pods anew."),
    "validate": Lazy("galaxy.cli.job.file:validate", "Check a job file.", "Job files"),
    "init": Lazy("galaxy.cli.job.file:init", "Write a commented job file to begin with.", "Job files"),
    "import": Lazy("galaxy.cli.job.file:import_", "Read a job file of Galaxy 3.", "Job files"),
    "schema": Lazy("galaxy.cli.job.file:schema", "Print the JSON Schema of job files.", "Job files"),
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
