"""Galaxy's own directory at the destination of packages: ``<destination>/.galaxy/``.

It holds ``<task>.json``, the manifest (package to its files), and ``<task>.<n>/``, the n-th staged
package, with ``<task>.<n>.json`` naming the package. The program can write all of it. Whatever it leaves
here is ignored or removed if Galaxy did not write it, so that the next version can be deployed; links are
never followed, and nothing blocks on a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from typing import Final

from galaxy.worker_entry.logic.archive import RESERVED, MemberRefused, safe_name

_JSON_BYTES_MAX: Final = 256 * 1024 * 1024
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def own_directory(destination: str, *, create: bool = False) -> str:
    """Return the path of Galaxy's directory at ``destination``; remove anything else that is there.

    Raises:
        OSError: it cannot be created or used.
    """
    path = os.path.join(destination, RESERVED)
    if os.path.lexists(path) and not is_directory(path):
        os.unlink(path)
    if create:
        os.makedirs(path, exist_ok=True)
    if is_directory(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        os.chmod(path, 0o700)
    return path


def read_manifest(path: str) -> dict[str, list[str]]:
    """Return the files of each package, relative to the destination; empty if there is no valid manifest."""
    read = read_json(path)
    if not isinstance(read, dict):
        return {}
    return {
        key: [name for name in names if _is_inside(name)]
        for key, names in read.items()
        if isinstance(names, list)
    }


def read_json(path: str) -> object:
    """Return what ``write_json`` wrote to ``path``, or None if it is missing or something else."""
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
        with open(fd, encoding="utf-8") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _JSON_BYTES_MAX:
                return None
            found: object = json.load(file)
            return found
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: str, value: object) -> None:
    """Replace the file ``path``, or whatever is there.

    Raises:
        OSError: it cannot be written.
    """
    for place in (f"{path}~", path):
        if place.endswith("~") or not stat.S_ISREG(_mode(path)):
            remove_path(place)
    fd = os.open(f"{path}~", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(f"{path}~", path)


def remove_path(path: str) -> None:
    """Remove a file, a link, or a directory with everything in it; a missing one is fine.

    Raises:
        OSError: it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if is_directory(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def is_directory(path: str) -> bool:
    """Return whether ``path`` is a directory; a link to one is not."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _is_inside(name: object) -> bool:
    """Return whether ``name`` can be the path of a file of a package."""
    try:
        return isinstance(name, str) and bool(name) and safe_name(name) == name
    except (MemberRefused, UnicodeEncodeError):
        return False
