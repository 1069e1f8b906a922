"""Fetch a package that the cluster stores: its chunks from Redis, checked against AppMaster's record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from galaxy.agent.packages.fetch import FetchOutcome, copy
from galaxy.errors import GalaxyError
from galaxy.model.stored.package import PackageRecord
from galaxy.units import format_bytes


class StoredPackages(Protocol):
    """The packages in Redis; see ``galaxy.nexus.packages.Packages``."""

    def find(self, package: str) -> PackageRecord | None: ...
    def read(self, row: PackageRecord) -> Iterator[bytes]: ...


def fetch_stored(
    stored: StoredPackages,
    package: str,
    fd: int,
    *,
    bytes_max: int,
    timeout_s: float,
    ending: Callable[[], bool],
) -> FetchOutcome:
    """Write the package with this id to ``fd``; give up after ``timeout_s`` or when ``ending``.

    Missing content is a temporary failure, because a client may send it again under the same id. A wrong
    checksum is final.
    """
    try:
        row = stored.find(package)
        if row is None or not row.stored:
            return FetchOutcome(error="the cluster does not have it: run or update the job again", retry=True)
        end_s = time.monotonic() + timeout_s
        reader = _Reader(stored.read(row), lambda: ending() or time.monotonic() > end_s)
        outcome = copy(reader, fd, bytes_max)
    except GalaxyError as error:
        return FetchOutcome(error=error.message, retry=True)
    if outcome.error:
        return outcome
    if outcome.size != row.size_bytes:
        got, expected = format_bytes(outcome.size), format_bytes(row.size_bytes)
        why = f"arrived in {timeout_s:g} s" if reader.stopped else "are stored: run or update the job again"
        return FetchOutcome(error=f"only {got} of {expected} {why}", retry=True)
    if outcome.sha256 != row.sha256:
        return FetchOutcome(error=f"sha256 is {outcome.sha256}, not {row.sha256}")
    return outcome


class _Reader:
    """A file-like reader of chunks, which ends early when ``stop`` returns True."""

    def __init__(self, chunks: Iterator[bytes], stop: Callable[[], bool]) -> None:
        self._chunks = chunks
        self._stop = stop
        self.stopped = False

    def read(self, _: int) -> bytes:
        self.stopped = self._stop()
        return b"" if self.stopped else next(self._chunks, b"")
