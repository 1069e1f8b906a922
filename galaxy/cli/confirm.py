"""Confirmation of commands that destroy something: asked on a terminal, ``--yes`` in scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from galaxy.cli.output import print_err, sanitize
from galaxy.errors import GalaxyError, UsageError

F = TypeVar("F", bound=Callable[..., Any])


def yes_option(function: F) -> F:
    """Add --yes; the command gets it as ``yes``."""
    return click.option(
        "-y", "--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal."
    )(function)


def confirm(actions: Sequence[str], *, hint: str) -> None:
    """Ask on the terminal whether to do ``actions``, each a line such as ``remove user ann``.

    Raises:
        UsageError: there is no terminal to ask on; ``hint`` is the command with ``--yes``.
        GalaxyError: the answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"will not {'; '.join(actions)} without confirmation", hint=hint)
    for action in actions[:-1]:
        print_err(action)
    try:
        agreed = click.confirm(f"{sanitize(actions[-1])}?", err=True)
    except click.Abort:
        print_err("")
        agreed = False
    if not agreed:
        raise GalaxyError("nothing was removed")
