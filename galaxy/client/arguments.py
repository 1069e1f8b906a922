"""Check arguments that Python accepts but that are probably mistakes, such as a text instead of a list."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from galaxy.errors import UsageError
from galaxy.suggest import did_you_mean

E = TypeVar("E", bound=StrEnum)

Command = str | Sequence[str | os.PathLike[str]]
"""A program and its arguments. A text is split as a shell would split it."""


def command(value: Command) -> tuple[str, ...]:
    """Return a command as a tuple of texts.

    A text is split as a POSIX shell splits words, with quotes and backslashes, but no shell runs:
    variables, patterns and pipes mean nothing. For these name a shell: ``["sh", "-c", "ls *.log"]``.

    Raises:
        UsageError: it is empty, a quote is not closed, or an argument is not a text.
    """
    words: object = value
    if isinstance(words, str):
        try:
            words = shlex.split(words)
        except ValueError as error:
            raise UsageError(f"cannot split the command {words[:80]!r}: {error}") from error
    if isinstance(words, bytes) or not isinstance(words, Sequence):
        raise UsageError(
            f"a command is a text or a list of texts, not {type(words).__name__}",
            hint='for example ["ls", "-l"] or "ls -l"',
        )
    for number, word in enumerate(words):
        if not isinstance(word, str | os.PathLike):
            raise UsageError(
                f"argument {number} of the command is {type(word).__name__}, not a text",
                hint="convert it with str()",
            )
    if not words:
        raise UsageError("no command to run")
    return tuple(os.fsdecode(word) for word in words if isinstance(word, str | os.PathLike))


def names(value: Sequence[str], argument: str) -> tuple[str, ...]:
    """Return a list of names as a tuple.

    Raises:
        UsageError: it is one text, which Python takes for a list of its letters.
    """
    if isinstance(value, str):
        raise UsageError(
            f"`{argument}` is a list of names, not one text", hint=f"{argument}=[{value[:80]!r}]"
        )
    return tuple(value)


def choice(value: str, choices: type[E], argument: str) -> E:
    """Return ``value`` as a member of ``choices``.

    Raises:
        UsageError: there is no such member; names those that exist.
    """
    known = [member.value for member in choices]
    if value not in known:
        raise UsageError(
            f'`{argument}` cannot be "{str(value)[:80]}"',
            details=[f"possible: {', '.join(known)}", *did_you_mean(str(value), known)],
        )
    return choices(value)
