"""Every ``galaxy`` command line that the documentation shows exists, with its options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from galaxy.cli.main import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "examples/hello/job.yaml", *sorted((ROOT / "docs").glob("*.md"))]


def shown() -> list[tuple[str, str]]:
    """Return (page, command line) for every command line in a code block or in backquotes."""
    lines = []
    for page in PAGES:
        text = page.read_text()
        found = re.findall(r"^(?:    |#   )(galaxy [^#\n]+)", text, re.MULTILINE)
        found += re.findall(r"`(galaxy [a-z][^`\n]*)`", text)
        lines += [(page.name, line.split("  ")[0].strip()) for line in found]
    return lines


def test_documentation_shows_commands() -> None:
    assert len(shown()) > 30


@pytest.mark.parametrize(("page", "line"), shown(), ids=lambda value: value)
def test_command_of_the_documentation_exists_with_its_options(page: str, line: str) -> None:
    arguments = shlex.split(line.split(" > ")[0])[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while arguments and isinstance(command, click.Group) and not arguments[0].startswith("-"):
        inner = command.get_command(context, arguments[0])
        if inner is None and command.invoke_without_command:
            break
        assert inner is not None, f"{page}: no command {arguments[0]!r} in {line!r}"
        command = inner
        arguments.pop(0)
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for argument in arguments:
        if argument == "--":
            break
        if argument.startswith("--"):
            assert argument.partition("=")[0] in known | {"--help"}, (
                f"{page}: {line!r} has no option {argument}"
            )
        elif re.fullmatch(r"-[a-z]+", argument):
            assert all(f"-{letter}" in known for letter in argument[1:]), (
                f"{page}: {line!r} has no option {argument}"
            )
