"""``galaxy``: run one command, and turn every problem into a readable message and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from galaxy import __version__
from galaxy.cli import environment, hidden_arguments, streams
from galaxy.cli.lazy import LazyCommand, LazyGroup
from galaxy.errors import DONE, FAILED, INTERRUPTED, USAGE, GalaxyError

_LOCAL: Final = "A cluster on this host"
_JOBS: Final = "Jobs"
_CLUSTER: Final = "The cluster"
_PROCESSES: Final = "Processes"

COMMANDS: Final = {
    "up": LazyCommand("galaxy.cli.local.commands:up", "Start a whole cluster on this host.", _LOCAL),
    "down": LazyCommand("galaxy.cli.local.commands:down", "Stop it.", _LOCAL),
    "doctor": LazyCommand("galaxy.cli.local.doctor:doctor", "Show what this host can enforce.", _LOCAL),
    "job": LazyCommand("galaxy.cli.job.group:job", "Run, list, show, update, stop and remove jobs.", _JOBS),
    "logs": LazyCommand("galaxy.cli.job.logs:logs", "Show what programs wrote.", _JOBS),
    "explain": LazyCommand("galaxy.cli.job.explain:explain", "Say why pods wait for a host.", _JOBS),
    "exec": LazyCommand("galaxy.cli.job.exec:exec_", "Run a command inside a pod.", _JOBS),
    "discover": LazyCommand("galaxy.cli.job.discover:discover", "Show the endpoints of a service.", _JOBS),
    "secret": LazyCommand("galaxy.cli.identity.secret:secret", "Store secret values for programs.", _JOBS),
    "package": LazyCommand("galaxy.cli.job.package:package", "Store package files in the cluster.", _JOBS),
    "status": LazyCommand("galaxy.cli.cluster.status:status", "Show leaders, agents and totals.", _CLUSTER),
    "agent": LazyCommand(
        "galaxy.cli.process.agent:agent", "List, show and manage agents; join a cluster as one.", _CLUSTER
    ),
    "pool": LazyCommand("galaxy.cli.cluster.pools:pool", "Manage pools of agents.", _CLUSTER),
    "tag": LazyCommand("galaxy.cli.cluster.pools:tag", "Manage tags of agents.", _CLUSTER),
    "safemode": LazyCommand(
        "galaxy.cli.cluster.safemode:safemode", "Show, enter and leave safe mode.", _CLUSTER
    ),
    "context": LazyCommand("galaxy.cli.cluster.context:context", "Choose the cluster to use.", _CLUSTER),
    "user": LazyCommand("galaxy.cli.identity.user:user", "Manage users, tokens and grants.", _CLUSTER),
    "quota": LazyCommand("galaxy.cli.identity.quota:quota", "Limit what each user's jobs request.", _CLUSTER),
    "top": LazyCommand("galaxy.cli.usage.top:top", "Show what agents, jobs and pods use now.", _CLUSTER),
    "usage": LazyCommand("galaxy.cli.usage.usage:usage", "Show what jobs asked for and used.", _CLUSTER),
    "bill": LazyCommand("galaxy.cli.usage.bill:bill", "Show what jobs cost.", _CLUSTER),
    "audit": LazyCommand("galaxy.cli.identity.audit:audit", "Show who did what.", _CLUSTER),
    "resman": LazyCommand("galaxy.cli.process.leaders:resman", "Run a ResMan.", _PROCESSES),
    "appmaster": LazyCommand("galaxy.cli.process.leaders:appmaster", "Run an AppMaster.", _PROCESSES),
    "web": LazyCommand("galaxy.web.command:web", "Serve Flower.", _PROCESSES),
    "redis": LazyCommand(
        "galaxy.cli.identity.redis_logins:redis", "Make the Redis logins of Galaxy's processes.", _PROCESSES
    ),
    "completion": LazyCommand("galaxy.cli.completion:completion", "Print shell completion.", "Other"),
    "agents": LazyCommand("galaxy.cli.process.agent:agents", hidden=True),
    # Names of Galaxy 3, which had no `job` group.
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

ALIASES: Final = {
    "jobs": "job",
    "log": "logs",
    "secrets": "secret",
    "packages": "package",
    "quotas": "quota",
    "pools": "pool",
    "tags": "tag",
}

EXAMPLES: Final = """\
  galaxy up --detach                 start a cluster on this host
  galaxy job run job.yaml            run a job and follow it until it is healthy
  galaxy job list                    list the jobs
  galaxy logs -f hello               follow what the programs of a job write
  galaxy job update job.yaml         move the job to a new revision, a few pods at a time
"""

EPILOG: Final = """\
\b
The cluster is chosen by --redis, --redis-file, --dir or --context, else by GALAXY_REDIS or
GALAXY_REDIS_FILE, else by GALAXY_DIR; without any of these it is the one that was started or
chosen last.

\b
Exit codes: 0 done, 1 failed, 2 accepted but not all of it runs yet, 3 refused, 64 wrong usage.
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
    """Run services and batch jobs on many Linux machines."""


def main() -> None:
    """Run this process' command line and exit."""
    streams.prepare()
    hidden_arguments.hide()
    if "_GALAXY_COMPLETE" not in os.environ:
        for line in environment.warnings(os.environ):
            _print_error(f"galaxy: warning: {line}")
    code = run(sys.argv[1:])
    streams.make_output_essential(essential=False)  # The command has ended already.
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Problems go to stderr, without a traceback.

    GALAXY_DEBUG=1 lets errors propagate instead, with their tracebacks.
    """
    streams.make_output_essential(essential=True)
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except streams.OutputLost as error:
        _print_error(f"galaxy: {error}")
        return code or FAILED
    return code


def _run(arguments: Sequence[str]) -> int:
    debug = os.environ.get("GALAXY_DEBUG", "") not in ("", "0")
    try:
        code = cli.main(list(arguments), prog_name="galaxy", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        _print_error(error.format_message())
        return USAGE
    except click.ClickException as error:
        _print_error(f"galaxy: {_usage_text(error)}")
        return USAGE
    except GalaxyError as error:
        if debug:
            raise
        _print_error(f"galaxy: {error}")
        return error.exit_code
    except UnicodeEncodeError as error:
        if debug:
            raise
        _print_error(f'galaxy: "{error.object[:200]}" is not text in UTF-8')
        return USAGE
    except (KeyboardInterrupt, click.exceptions.Abort):
        _print_error("")
        return INTERRUPTED
    except streams.OutputLost as error:
        _print_error(f"galaxy: {error}")
        return FAILED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED if error.code else DONE
    except Exception as error:
        if debug:
            raise
        _print_error(f"galaxy: {_unexpected_text(error)}")
        return FAILED
    return code if isinstance(code, int) else 0


def _unexpected_text(error: Exception) -> str:
    """Describe an unexpected error: a file that cannot be used, or else a fault of Galaxy."""
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {str(error.filename)[:200]!r}: {error.strerror}"
    kind = type(error).__name__
    return f"internal error: {kind}: {error}\n  try: GALAXY_DEBUG=1 shows where; please report it"


def _usage_text(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())  # click puts each choice on its own line.
    text = message[:1].lower() + message[1:].rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        text = _unknown_option_text(error.option_name, context.command)
    if isinstance(error, click.UsageError) and context is not None:
        text += f"\n  try: {context.command_path} -h"
    return text


def _unknown_option_text(name: str, command: click.Command) -> str:
    from galaxy.suggest import nearest

    known = [option for param in command.params for option in (*param.opts, *param.secondary_opts)]
    guess = nearest(name, [option for option in known if option.startswith("--")])
    return f'no option "{name}"' + (f"; did you mean `{guess}`?" if guess else "")


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError):
        from galaxy.cli.output import sanitize

        sys.stderr.write(f"{sanitize(text)}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
