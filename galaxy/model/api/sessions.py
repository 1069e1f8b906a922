"""Operations that open a stream of bytes, and the messages that AppMaster sends to agents for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from galaxy.errors import UsageError
from galaxy.model.api.body import Body
from galaxy.model.api.views import LogChunk
from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.worker import PACKET_BYTES_MAX
from galaxy.model.raw_text import from_message

ARGUMENT_BYTES_MAX: Final = 128 * 1024
"""The kernel's MAX_ARG_STRLEN, with the zero byte at its end."""
EXEC_BYTES_MAX: Final = PACKET_BYTES_MAX - 8 * 1024
"""Longest command, encoded as JSON: its packet has other fields as well."""


class SessionOpened(Struct, frozen=True, kw_only=True):
    """One session for each pod; session ids are keys under ``galaxy:session:``.

    ``incarnations`` are those of the pods' containers, 0 where there is none any more.
    """

    sessions: tuple[str, ...]
    pods: tuple[str, ...]
    incarnations: tuple[int, ...] = ()


class LogPosition(Struct, frozen=True, kw_only=True):
    """How far a stream of a program was read, and when the last run that was announced began (or 0)."""

    task: str
    stream: str
    at: int
    run_s: float = 0.0


class ReadLogs(Body[SessionOpened], frozen=True, kw_only=True):
    """Read logs of ``target``, a job or a pod. Lines come over the sessions as ``LogChunk``."""

    op: ClassVar[str] = "galaxy.job.logs"
    target: str
    task: str = ""
    stream: str = ""
    """``stdout``, ``stderr``, or empty for both."""
    tail: Annotated[int, Meta(ge=-1)] = 200
    """Last lines of each pod to read; -1 means all."""
    follow: bool = False
    previous: bool = False
    """Read the run before the current one."""
    latest: bool = False
    """Read the latest run alone."""
    since_s: float = 0.0
    """Read only what was written at this time or later, in Unix seconds; 0 means everything."""
    resume: tuple[LogPosition, ...] = ()
    """Continue where an earlier session of the same pod ended; ``tail`` has no meaning then."""
    resume_incarnation: int = 0
    """The incarnation to which the positions belong."""


class ExecIn(Body[SessionOpened], frozen=True, kw_only=True):
    """Run ``argv`` in a pod; bytes travel over the session's lists, see ``galaxy.nexus.session``."""

    op: ClassVar[str] = "galaxy.pod.exec"
    pod: str
    argv: tuple[str, ...]
    """See ``galaxy.model.raw_text`` for bytes that are not UTF-8."""
    task: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80
    detach: bool = False
    """Let the command run on without its client; it has no input, and its output is dropped."""


class LogSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: stream logs of one pod into a session."""

    session: str
    pod: str
    read: ReadLogs
    incarnation: int = 0
    """That of the pod's container; 0 if it has none any more."""


class ExecSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: run a command in one pod, with its bytes over a session."""

    session: str
    pod: str
    exec: ExecIn


def check_exec(argv: Sequence[str]) -> None:
    """Refuse a command, in the form of messages, that could not be sent to a pod or started there.

    Raises:
        UsageError: names the argument or the limit.
    """
    for number, argument in enumerate(argv):
        text = from_message(argument)
        size = len(text.encode("utf-8", "surrogateescape"))
        if size >= ARGUMENT_BYTES_MAX:
            raise UsageError(
                f"argument {number} of the command is too long: {size:,} bytes",
                details=[f"the kernel passes less than {ARGUMENT_BYTES_MAX:,} bytes in one argument"],
                hint="pass it on standard input: galaxy exec -i",
            )
        if "\0" in text:
            raise UsageError(f"argument {number} of the command has a zero byte; no program can receive it")
    size = len(encode(list(argv)))
    if size > EXEC_BYTES_MAX:
        raise UsageError(
            f"the command is too long: {size:,} bytes as JSON",
            details=[f"{EXEC_BYTES_MAX:,} bytes are allowed"],
            hint="pass data on standard input: galaxy exec -i",
        )


def pack_chunks(chunks: Sequence[bytes]) -> bytes:
    """Return encoded chunks as one item of a session."""
    return b"[" + b",".join(chunks) + b"]"


def unpack_chunks(item: bytes) -> list[LogChunk]:
    """Return the chunks that ``pack_chunks`` encoded.

    Raises:
        BadMessage: ``item`` holds no chunks.
    """
    return decode(item, list[LogChunk])
