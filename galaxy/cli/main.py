"""``galaxy``: parse, run, and turn whatever goes wrong into one readable message and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from galaxy import __version__
from galaxy.cli.lazy import LazyCommand, LazyGroup
from galaxy.errors import FAILED, USAGE, GalaxyError

INTERRUPTED: Final = 130

COMMANDS: Final = {
    "up": LazyCommand(
        "galaxy.cli.local.commands:up", "Start a whole cluster on this host.", "A cluster on this host"
    ),
    "down": LazyCommand("galaxy.cli.local.commands:down", "End it.", "A cluster on this host"),
    "doctor": LazyCommand(
        "galaxy.cli.local.doctor:doctor", "Say what this host can enforce.", "A cluster on this host"
    ),
    "job": LazyCommand("galaxy.cli.job.group:job", "Run, list, show, update, stop, remove jobs.", "Jobs"),
    "logs": LazyCommand("galaxy.cli.job.logs:logs", "Show what programs wrote.", "Jobs"),
    "exec": LazyCommand("galaxy.cli.job.exec:exec_", "Run a command inside a pod.", "Jobs"),
    "discover": LazyCommand("galaxy.cli.job.discover:discover", "Show where a service answers.", "Jobs"),
    "status": LazyCommand(
        "galaxy.cli.cluster.status:status", "Show leaders, agents and totals.", "The cluster"
    ),
    "agent": LazyCommand(
        "galaxy.cli.process.agent:agent", "List and show agents; join a cluster as one.", "The cluster"
    ),
    "context": LazyCommand(
        "galaxy.cli.cluster.context:context", "Choose which cluster is meant.", "The cluster"
    ),
    "user": LazyCommand("galaxy.cli.identity.user:user", "Make users, tokens and grants.", "The cluster"),
    "quota": LazyCommand("galaxy.cli.identity.quota:quota", "Limit what each user may have.", "The cluster"),
    "secret": LazyCommand("galaxy.cli.identity.secret:secret", "Keep values that nobody is shown.", "Jobs"),
    "audit": LazyCommand("galaxy.cli.identity.user:audit", "Show who did what.", "The cluster"),
    "resman": LazyCommand("galaxy.cli.process.leaders:resman", "Run a ResMan.", "Processes"),
    "appmaster": LazyCommand("galaxy.cli.process.leaders:appmaster", "Run an AppMaster.", "Processes"),
    "web": LazyCommand("galaxy.web.command:web", "Serve Flower.", "Processes"),
    "redis": LazyCommand(
        "galaxy.cli.identity.redis_logins:redis", "Logins of the parts in Redis.", "Processes"
    ),
    "completion": LazyCommand("galaxy.cli.completion:completion", "Print shell completion.", "Other"),
    "run": LazyCommand("galaxy.cli.job.run:run", hidden=True),
    "submit": LazyCommand("galaxy.cli.job.run:run", hidden=True),
    "update": LazyCommand("galaxy.cli.job.run:update", hidden=True),
    "list": LazyCommand("galaxy.cli.job.show:list_", hidden=True),
    "show": LazyCommand("galaxy.cli.job.show:show", hidden=True),
    "stop": LazyCommand("galaxy.cli.job.change:stop", hidden=True),
    "start": LazyCommand("galaxy.cli.job.change:start", hidden=True),
    "remove": LazyCommand("galaxy.cli.job.change:remove", hidden=True),
    "recover": LazyCommand("galaxy.cli.job.change:recover", hidden=True),
    "json": LazyCommand("galaxy.cli.job.files:init", hidden=True),
    "list_agents": LazyCommand("galaxy.cli.cluster.agents:list_", hidden=True),
    "show_agent": LazyCommand("galaxy.cli.cluster.agents:show", hidden=True),
}
"""Hidden ones are the ancestor's words, which had no ``job`` before them."""

ALIASES: Final = {"jobs": "job", "log": "logs", "agents": "agent", "secrets": "secret", "quotas": "quota"}

EXAMPLES: Final = """\
  galaxy up --detach                 a cluster on this host
  galaxy job run job.yaml            run a job and watch it come up
  galaxy job list                    what runs
  galaxy logs -f hello               what it writes
  galaxy job update job.yaml         a new revision, a few pods at a time
"""

EPILOG: Final = """\
\b
Which cluster is meant: --redis, --dir or --context, then GALAXY_REDIS, then GALAXY_DIR,
then the one started or chosen last.
"""


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"galaxy {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    aliases=ALIASES,
    examples=EXAMPLES,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def cli() -> None:
    """Services and batch jobs on many Linux machines."""


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; problems go to stderr, never as a traceback.

    GALAXY_DEBUG=1 shows tracebacks.
    """
    debug = os.environ.get("GALAXY_DEBUG", "") not in ("", "0")
    try:
        code = cli.main(list(arguments), prog_name="galaxy", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        _complain(error.format_message())
        return USAGE
    except click.ClickException as error:
        _complain(f"galaxy: {_usage(error)}")
        return USAGE
    except GalaxyError as error:
        if debug:
            raise
        _complain(f"galaxy: {error}")
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _complain("")
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more; keep the interpreter's own last flush from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        _complain(f"galaxy: {_fault(error)}")
        return FAILED
    return code if isinstance(code, int) else 0


def _fault(error: Exception) -> str:
    """Say what nobody expected: a file that cannot be used is the user's to see to, all else is ours."""
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {str(error.filename)[:200]!r}: {error.strerror}"
    kind = type(error).__name__
    return f"internal error: {kind}: {error}\n  try: GALAXY_DEBUG=1 shows where; please report it"


def _usage(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())  # Choices come one a line.
    text = message[:1].lower() + message[1:].rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        text += f"\n  try: {context.command_path} -h"
    return text


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        from galaxy.cli.output import sanitize

        sys.stderr.write(f"{sanitize(text)}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
