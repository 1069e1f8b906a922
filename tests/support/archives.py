"""Tar archives for tests, ordinary and malicious."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def make_tar(
    path: Path, files: Mapping[str, str], mode: str = "w:gz", members: Sequence[tarfile.TarInfo] = ()
) -> Path:
    """Write a tar of ``files`` (name to text, all executable) and bare ``members``; return ``path``."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
        for member in members:
            tar.addfile(member)
    return path


def make_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member without content: a link, a device, a pipe."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info
