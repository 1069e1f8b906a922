"""Package sources: which are allowed, and the name of an archive in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from galaxy.agent.packages.fetch import PROTOCOLS
from galaxy.model.jobspec.package_source import STORED, stored_package
from galaxy.model.redaction import redact, source_without_credentials

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class PackageId(msgspec.Struct, frozen=True, kw_only=True):
    """The archive that ``source`` names. ``sha256`` pins its content; empty accepts any content."""

    source: str
    version: str
    sha256: str = ""


class PackageRefused(Exception):
    """A source that is never fetched on this host; ``elsewhere`` says whether another host may."""

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


class PackageSources:
    """The sources allowed on this host. Local files must be below one of ``roots``."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(os.path.realpath(root) for root in roots)

    def cache_name(self, package: PackageId) -> str:
        """Return the archive's file name in the cache.

        A package that the cluster stores has "g-" and its id as name, so that only jobs of its owner
        get it. Another pinned archive has its sha256 as name. Otherwise the name starts with "f-" for
        a local file, whose identity includes inode, size and modification time, or with "u-" for a URL.

        Raises:
            PackageRefused: the source is not allowed.
        """
        protocol, path = self.parse(package.source)
        if protocol == STORED:
            return f"g-{path}"
        if package.sha256:
            if not _SHA256.fullmatch(package.sha256):
                raise PackageRefused(f"{package.sha256!r} is not a sha256")
            return package.sha256
        identity = [package.source, package.version]
        if protocol == "file":
            with contextlib.suppress(OSError):
                facts = os.stat(path)
                stamps = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
                identity += [str(stamp) for stamp in stamps]
        digest = hashlib.blake2b("\x1f".join(identity).encode(), digest_size=24).hexdigest()
        return ("f-" if protocol == "file" else "u-") + digest

    def parse(self, source: str) -> tuple[str, str]:
        """Return the protocol and path of a source; an absolute path counts as ``file``.

        The path of a package that the cluster stores is its id.

        Raises:
            PackageRefused: the source is not allowed.
        """
        match = _URL.fullmatch(source)
        shown = source_without_credentials(source)
        if match is None and source.startswith("/"):
            protocol, path = "file", source
        elif match is None:
            raise PackageRefused(
                f"package source {shown!r} is not a URL; only the client resolves relative paths"
            )
        else:
            protocol, path = match[1].lower(), match[2]
        if stored := stored_package(source):
            return STORED, stored
        if protocol not in PROTOCOLS or "::" in source:
            raise PackageRefused(
                f"package source {shown!r}: only {', '.join(PROTOCOLS)} are fetched, without chains"
            )
        if protocol == "file" and match is not None:
            path = self._path_of_file_url(source, shown)
        if protocol == "file" and ("\0" in path or not self.is_below_root(os.path.realpath(path))):
            raise self.outside(path)
        return protocol, path

    def is_below_root(self, real_path: str) -> bool:
        return any(os.path.commonpath((root, real_path)) == root for root in self._roots)

    def outside(self, path: str) -> PackageRefused:
        """Return the refusal of a file that is not below a root."""
        roots = ", ".join(self._roots) or "none is configured"
        return PackageRefused(
            f"file {path!r} is not below a package root of this host ({roots})", elsewhere=True
        )

    def _path_of_file_url(self, source: str, shown: str) -> str:
        try:
            parts = urllib.parse.urlsplit(source)
        except ValueError as error:
            raise PackageRefused(
                f"package source {shown!r} is not a URL: {redact(str(error), source)}"
            ) from None
        if parts.netloc not in ("", "localhost"):
            raise PackageRefused(
                f"package source {shown!r} names the host {parts.hostname!r}; use http or s3"
            )
        return urllib.parse.unquote(parts.path)
