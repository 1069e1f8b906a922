"""Small files that keep one record: written atomically, read back as None when they are not usable."""

from __future__ import annotations

import contextlib
import os
from typing import Final, TypeVar

from galaxy.errors import BadMessage
from galaxy.model.base import Struct, decode, encode

T = TypeVar("T", bound=Struct)

_FILE_BYTES_MAX: Final = 1 << 20


def save_record(path: str, record: Struct) -> None:
    """Write ``record`` completely or not at all. It survives processes, but not a crash of the machine.

    Raises:
        OSError: the disk is full or failing; the previous file is unchanged.
    """
    draft = f"{path}.new"
    fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(encode(record))
        while left:  # On an almost full disk write(2) first takes a part without an error.
            left = left[os.write(fd, left) :]
        os.rename(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    finally:
        os.close(fd)


def load_record(path: str, kind: type[T]) -> T | None:
    """Return what ``save_record`` wrote; None when there is no file or it does not hold a ``kind``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return decode(os.read(fd, _FILE_BYTES_MAX), kind)
        finally:
            os.close(fd)
    except (OSError, BadMessage):
        return None
