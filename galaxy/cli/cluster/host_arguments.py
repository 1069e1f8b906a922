"""The hosts that a command line names: as arguments, and in files."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from galaxy.cli.options import agent_names, complete
from galaxy.cli.output import Output, print_err, print_out
from galaxy.errors import UsageError
from galaxy.model.api.machines import AgentsView, check_hosts
from galaxy.units import counted

F = TypeVar("F", bound=Callable[..., Any])

FILE_BYTES_MAX: Final = 1_000_000
hosts_argument = click.argument("hosts", nargs=-1, metavar="HOST...", shell_complete=complete(agent_names))


def file_option(function: F) -> F:
    """Add --file to a command with ``hosts``, which then gets both together."""

    @click.option(
        "--file", "files", multiple=True, metavar="FILE",
        help="A file with more hosts, separated by spaces or lines; `-` is standard input.",
    )  # fmt: skip
    @functools.wraps(function)
    def command(*args: Any, hosts: Sequence[str], files: Sequence[str], **kwargs: Any) -> Any:
        return function(*args, hosts=all_hosts(hosts, files), **kwargs)

    return command  # type: ignore[return-value]


def all_hosts(hosts: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Return ``hosts`` and those in ``files``, each once. In a file, `#` begins a comment.

    Raises:
        UsageError: a file cannot be read, is too long, or names no host.
    """
    names = list(hosts)
    for file in files:
        for line in _read(file).splitlines():
            names += line.partition("#")[0].split()
    return check_hosts(names)


def _read(file: str) -> str:
    try:
        text = sys.stdin.read(FILE_BYTES_MAX + 1) if file == "-" else _read_file(Path(file))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"cannot read {file}: {why}") from error
    if len(text) > FILE_BYTES_MAX:
        raise UsageError(
            f"{file} is too long for a list of hosts", details=[f"{FILE_BYTES_MAX:,} bytes at most"]
        )
    return text


def _read_file(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(FILE_BYTES_MAX + 1)


def print_changed(output: Output, view: AgentsView, done: str, already: str) -> None:
    """Print which hosts a request changed, and which were so before."""
    if output.print_data(view, view.agents):
        return
    changed = set(view.changed)
    if view.changed:
        print_out(f"{done}: {_named(view.changed)}")
    same = [agent for agent in view.agents if agent not in changed]
    if same:
        print_err(f"{already}: {_named(same)}")


def _named(hosts: Sequence[str]) -> str:
    return (
        ", ".join(hosts)
        if len(hosts) <= 10
        else f"{', '.join(hosts[:9])} and {counted(len(hosts) - 9, 'more host')}"
    )
