"""Packages that the cluster stores for its users, as AppMaster keeps them and agents read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from galaxy.model.base import Struct
from galaxy.units import KIB

PACKAGES: Final = "packages"
"""Name of AppMaster's table of packages."""
CHUNK_BYTES: Final = 256 * KIB
"""Size of a chunk: two seconds of a link of 1 Mbit/s, which is well below Redis' time-out."""


class PackageRecord(Struct, frozen=True, kw_only=True):
    """A package, whose id is the row's key. Its chunks are in Redis, outside the tables.

    Until it is ``stored`` its owner sends chunks to ``upload``, a name that nobody else knows.
    Times are Unix seconds.
    """

    package: str
    user: str
    """Owner: only the owner's jobs may use it."""
    name: str
    """File name, for people only."""
    sha256: str
    size_bytes: int
    upload: str
    stored: bool = False
    chunk_bytes: int = CHUNK_BYTES
    used_s: float = 0.0
    """When a request last named it."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.size_bytes // self.chunk_bytes)

    def chunk_sizes(self) -> Iterator[int]:
        """Yield the size of each chunk in bytes; only the last one may be shorter than the others."""
        for start in range(0, self.size_bytes, self.chunk_bytes):
            yield min(self.chunk_bytes, self.size_bytes - start)
