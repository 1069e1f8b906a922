"""Packages that a cluster stores, in memory, as an agent reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from galaxy.ids import package_id
from galaxy.model.stored.package import PackageRecord


class MemoryPackages:
    """Packages of user ann. ``reads`` counts how often the content of one was read."""

    def __init__(self) -> None:
        self.rows: dict[str, PackageRecord] = {}
        self.chunks: dict[str, list[bytes]] = {}
        self.reads = 0

    def add(self, data: bytes, *, chunk_bytes: int = 1000) -> str:
        """Store a package and return its source."""
        sha256 = hashlib.sha256(data).hexdigest()
        package = package_id("ann", sha256)
        self.rows[package] = PackageRecord(
            package=package, user="ann", name="app.tar.gz", sha256=sha256, size_bytes=len(data),
            upload="u", stored=True, chunk_bytes=chunk_bytes,
        )  # fmt: skip
        self.chunks[package] = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
        return f"galaxy://{package}/app.tar.gz"

    def find(self, package: str) -> PackageRecord | None:
        return self.rows.get(package)

    def read(self, row: PackageRecord) -> Iterator[bytes]:
        self.reads += 1
        yield from self.chunks[row.package]
