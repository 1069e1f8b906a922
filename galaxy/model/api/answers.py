"""Answers to requests."""

from __future__ import annotations

from typing import Any

from galaxy.errors import GalaxyError, error_from, own_exit_code
from galaxy.model.base import Struct
from galaxy.model.redaction import without_credentials


class Problem(Struct, frozen=True, kw_only=True):
    """An error in an answer; ``kind`` as in ``galaxy.errors``."""

    kind: str
    message: str
    details: tuple[str, ...] = ()
    hint: str = ""
    exit_code: int | None = None
    """Of this error, if it differs from that of its kind."""


class Answer(Struct, frozen=True, kw_only=True):
    """The answer to request ``key``: the operation's ``result`` (a ``Body.result``) or a ``problem``."""

    key: str
    result: Any = None
    problem: Problem | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """An answer, and the id of the short-lived Redis list on which its client waits."""

    reply: str
    answer: Answer


def problem_of(error: GalaxyError) -> Problem:
    """Return ``error`` as a ``Problem`` for an answer, without credentials of URLs that it quotes."""
    message, details = without_credentials(error.message), map(without_credentials, error.details)
    code = own_exit_code(error)
    return Problem(kind=error.kind, message=message, details=tuple(details), hint=error.hint, exit_code=code)


def error_of(problem: Problem) -> GalaxyError:
    """Return the error that ``problem`` was made of."""
    return error_from(
        problem.kind, problem.message, problem.details, problem.hint, exit_code=problem.exit_code
    )
