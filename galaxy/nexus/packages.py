"""Contents of packages: clients send chunks, a leader's commit stores or removes them, agents read them.

An upload is a hash of chunks whose key only its sender and AppMaster know; it expires. The commit
that makes a package ``stored`` renames it, so that no client can write, or read, a stored package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import redis

from galaxy.model.base import decode
from galaxy.model.messages.names import APPMASTER
from galaxy.model.stored.package import PACKAGES, PackageRecord
from galaxy.model.stored.table import TableChange
from galaxy.nexus import keys
from galaxy.nexus.connection import reaching

UPLOAD_TTL_S: Final = 3600
"""How long an upload is kept after its last chunk."""
CHECKED_MAX: Final = 8
"""Chunks whose checksums one script computes: some milliseconds of Redis' time."""

_SEND: Final = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""

_CHECK: Final = """
local sums = {}
for i = 2, #ARGV do
  local chunk = redis.call('HGET', KEYS[1], ARGV[i])
  sums[#sums + 1] = chunk and redis.sha1hex(chunk) or ''
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return sums
"""


class Packages:
    """Chunks of packages in Redis. Threads may share it; every method may raise ``Unreachable``."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address
        self._send = client.register_script(_SEND)
        self._check = client.register_script(_CHECK)

    # ---- for clients

    def send(self, upload: str, number: int, chunk: bytes) -> None:
        """Write one chunk of an upload; writing it twice has the effect of once."""
        with reaching(self._address):
            self._send(keys=[keys.upload(upload)], args=[number, chunk, UPLOAD_TTL_S])

    def count(self, upload: str) -> int:
        """Return how many chunks an upload has."""
        with reaching(self._address):
            untyped: Any = self._client
            return int(untyped.hlen(keys.upload(upload)))

    def has(self, upload: str, first: int, chunks: Sequence[bytes]) -> list[bool]:
        """Return for each of ``chunks``, numbered from ``first``, whether the upload has exactly it."""
        found: list[bool] = []
        for start in range(0, len(chunks), CHECKED_MAX):
            part = chunks[start : start + CHECKED_MAX]
            numbers = range(first + start, first + start + len(part))
            with reaching(self._address):
                sums: Any = self._check(keys=[keys.upload(upload)], args=[UPLOAD_TTL_S, *numbers])
            found += [
                sums[at].decode() == hashlib.sha1(chunk, usedforsecurity=False).hexdigest()
                for at, chunk in enumerate(part)
            ]
        return found

    # ---- for agents

    def find(self, package: str) -> PackageRecord | None:
        """Return what AppMaster has stored about a package, or None when it has no such package."""
        with reaching(self._address):
            row: Any = self._client.hget(keys.table(APPMASTER, PACKAGES), package)
        return None if row is None else decode(row, PackageRecord)

    def read(self, row: PackageRecord) -> Iterator[bytes]:
        """Yield the chunks of a stored package in order; ends early when one is missing."""
        for number in range(row.chunks):
            with reaching(self._address):
                chunk: Any = self._client.hget(keys.package(row.package), str(number))
            if chunk is None:
                return
            yield chunk


def content_operations(change: TableChange, number_of: Callable[[str], int]) -> list[bytes | str]:
    """Return the operations of a commit that follow from a change in the table of packages.

    ``number_of`` returns the number of a key in the commit's script.
    """
    content = str(number_of(keys.package(change.key)))
    if change.value is None:
        return ["U", content, "0"]
    row = decode(change.value, PackageRecord)
    if not row.stored:
        return []
    return ["P", content, "1", str(number_of(keys.upload(row.upload)))]
