"""Operations that open a stream of bytes, and the messages that AppMaster sends to agents for them."""

from __future__ import annotations

from typing import ClassVar

from galaxy.model.api.body import Body
from galaxy.model.base import Struct


class SessionOpened(Struct, frozen=True, kw_only=True):
    """One session for each pod; session ids are keys under ``galaxy:session:``."""

    sessions: tuple[str, ...]
    pods: tuple[str, ...]


class ReadLogs(Body[SessionOpened], frozen=True, kw_only=True):
    """Read logs of ``target``, a job or a pod. Lines come over the sessions as ``LogChunk``."""

    op: ClassVar[str] = "galaxy.job.logs"
    target: str
    task: str = ""
    stream: str = ""
    """``stdout``, ``stderr``, or empty for both."""
    tail: int = 200
    """Last lines to read; -1 means all."""
    follow: bool = False
    previous: bool = False
    """Read the run before the current one."""


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


class LogSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: stream logs of one pod into a session."""

    session: str
    pod: str
    read: ReadLogs


class ExecSession(Struct, frozen=True, kw_only=True):
    """AppMaster to an agent: run a command in one pod, with its bytes over a session."""

    session: str
    pod: str
    exec: ExecIn
