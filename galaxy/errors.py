"""Every error that a caller can act on, and the exit code that each one means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

DONE: Final = 0
FAILED: Final = 1
NOT_ALL_RUNNING: Final = 2
"""Accepted, but not all of it runs yet."""
REFUSED: Final = 3
"""Refused by permission, quota, or the present state: a name that is taken, for example."""
USAGE: Final = 64
INTERRUPTED: Final = 130
"""Ended by Ctrl-C, as shells count signals."""


class GalaxyError(Exception):
    """Something that cannot be done: what, why in numbers, and what to do.

    Attributes:
        kind: Stable identifier in answers; ``error_from`` rebuilds the class from it.
        exit_code: What the command line exits with.
        message: What cannot be done, one line.
        details: Further lines: the numbers, or one line per problem.
        hint: What to try, one line; empty when there is nothing to try.
    """

    kind: ClassVar[str] = "failed"
    exit_code: int = FAILED

    def __init__(self, message: str, *, details: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in self.details)]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class UsageError(GalaxyError):
    """A command or call that is wrong in itself."""

    kind = "usage"
    exit_code = USAGE


class SpecError(GalaxyError):
    """A job file with problems; ``details`` lists every one."""

    kind = "spec"
    exit_code = USAGE


class NotSupportedYet(SpecError):
    """A field or value that a later version implements."""

    kind = "not-supported"


class NotFound(GalaxyError):
    """A job, pod, agent or service that does not exist."""

    kind = "not-found"


class Conflict(GalaxyError):
    """A request that conflicts with the present state, such as a name that is taken."""

    kind = "conflict"
    exit_code = REFUSED


class KeyConflict(Conflict):
    """An idempotency key that belongs to another request. It is a mistake of the caller, not a state."""

    exit_code = FAILED


class Refused(GalaxyError):
    """Refused by permission or quota; also a wrong Redis password."""

    kind = "refused"
    exit_code = REFUSED


class Unreachable(GalaxyError):
    """The cluster or a part of it does not answer in time."""

    kind = "unreachable"


class TimedOut(GalaxyError):
    """Work that was started and did not end within its time limit; ``details`` say whether it was ended."""

    kind = "timed-out"


class HostError(GalaxyError):
    """This host lacks something: a kernel feature, a privilege, a tool."""

    kind = "host"


class NotLeader(GalaxyError):
    """A write by a process that cannot prove that it leads; nothing was written."""

    kind = "not-leader"


class BadMessage(GalaxyError):
    """A message that is malformed, foreign or of an unknown version; it is dropped."""

    kind = "bad-message"


_KINDS: Final[dict[str, type[GalaxyError]]] = {
    error.kind: error
    for error in (
        GalaxyError, UsageError, SpecError, NotSupportedYet, NotFound, Conflict,
        Refused, Unreachable, TimedOut, HostError, NotLeader, BadMessage,
    )
}  # fmt: skip


def error_from(
    kind: str, message: str, details: Sequence[str], hint: str, *, exit_code: int | None = None
) -> GalaxyError:
    """Return the error that an answer carries; an unknown kind becomes a plain ``GalaxyError``.

    ``exit_code`` is that of the error, if it differs from that of its kind.
    """
    error = _KINDS.get(kind, GalaxyError)(message, details=details, hint=hint)
    if exit_code is not None:
        error.exit_code = exit_code
    return error


def own_exit_code(error: GalaxyError) -> int | None:
    """Return the exit code of ``error`` if it differs from that of its kind."""
    usual = _KINDS.get(error.kind, GalaxyError).exit_code
    return None if error.exit_code == usual else error.exit_code
