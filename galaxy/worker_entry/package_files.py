"""Move the files of a task's packages from the staging directory into place, and remove old ones.

``place`` moves files by rename, removes what an earlier version of the task's packages had and the
required ones do not, and leaves alone what the program created itself. If it is interrupted, the
next call completes it: the manifest then names the files of both versions.

``package_records`` describes where manifests and staged files are kept.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from typing import Final

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.redaction import source_without_credentials
from galaxy.worker_entry.package_records import (
    is_directory,
    own_directory,
    read_json,
    read_manifest,
    remove_path,
    write_json,
)

MEMBERS_MAX: Final = 500_000
"""Limit on the files of one archive, and on staged packages."""
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)
"""Errors of a removal after which there is nothing more to do: also for a directory with others' files."""


class UnpackFailed(Exception):
    """A package cannot be unpacked or placed; ``retry`` says whether another try may succeed."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


def place(task: str, destination: str, required: list[PackageSpec]) -> None:
    """Move staged packages into place; of the task's files here only those of ``required`` remain.

    Raises:
        UnpackFailed: a file cannot be moved, or something that belongs to no package is in its way.
    """
    try:
        hidden = own_directory(destination)
        old = read_manifest(os.path.join(hidden, f"{task}.json"))
        keys = [_key(package) for package in required]
        # Packages of a deployment that a newer order replaced may be staged as well.
        staged = [(staged_dir, key) for staged_dir, key in _staged(hidden, task) if key in keys]
        if lost := set(keys) - set(old) - {key for _, key in staged}:
            raise UnpackFailed(f"unpacked files are gone: {', '.join(sorted(lost))}", retry=True)
        for staged_dir, _ in staged:
            _check_conflicts(staged_dir, destination, {path for paths in old.values() for path in paths})
        new = {key: old.get(key, []) for key in keys}
        new |= {key: sorted(_paths(staged_dir)) for staged_dir, key in staged}
        if not new and not old:
            discard(task, destination)
            return
        own_directory(destination, create=True)
        both = {key: sorted({*old.get(key, []), *new.get(key, [])}) for key in {**old, **new}}
        write_json(os.path.join(hidden, f"{task}.json"), both)
        for staged_dir, _ in staged:
            _move(staged_dir, destination)
        keep = {path for paths in new.values() for path in paths}
        _remove_files(destination, {path for paths in old.values() for path in paths} - keep)
        write_json(os.path.join(hidden, f"{task}.json"), new)
        discard(task, destination)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UnpackFailed(
            f"cannot replace the package: {error.strerror}{where}", retry=is_temporary(error)
        ) from error


def discard(task: str, destination: str) -> None:
    """Remove what is staged for ``task``."""
    hidden = own_directory(destination)
    for name in os.listdir(hidden) if is_directory(hidden) else ():
        if name.removesuffix(".json").rpartition(".")[0] == task:
            remove_path(os.path.join(hidden, name))


# ---- moving files


def _staged(hidden: str, task: str) -> Iterator[tuple[str, str]]:
    """Yield the directory and the key of each staged package."""
    for number in range(MEMBERS_MAX):
        staged_dir = os.path.join(hidden, f"{task}.{number}")
        key = read_json(f"{staged_dir}.json")
        if not isinstance(key, str) or not is_directory(staged_dir):
            return
        yield staged_dir, key


def _paths(root: str) -> Iterator[str]:
    """Yield every path below ``root``, relative to it."""
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), root)


def _check_conflicts(staged_dir: str, destination: str, ours: set[str]) -> None:
    """Refuse, before anything is moved, a file at whose path the program has created a directory."""
    behind_link = _BehindLinks(destination)
    for path in _paths(staged_dir):
        here, there = os.path.join(staged_dir, path), os.path.join(destination, path)
        if behind_link(path) or not is_directory(there) or is_directory(here):
            continue
        if path not in ours or any(os.path.join(path, below) not in ours for below in _paths(there)):
            message = f"{path!r} is a file in the package, and a directory with other files in {destination}"
            raise UnpackFailed(message, retry=False)


def _move(staged_dir: str, destination: str) -> None:
    for directory, names, files in os.walk(staged_dir):
        base = os.path.relpath(directory, staged_dir)
        for name in list(names):
            source = os.path.join(directory, name)
            target = os.path.normpath(os.path.join(destination, base, name))
            if os.path.islink(source):  # A link to a directory is moved as a link.
                names.remove(name)
                files.append(name)
                continue
            if os.path.lexists(target) and not is_directory(target):
                os.unlink(target)
            os.makedirs(target, exist_ok=True)
        for name in files:
            target = os.path.normpath(os.path.join(destination, base, name))
            if is_directory(target):
                shutil.rmtree(target)
            os.replace(os.path.join(directory, name), target)


def _remove_files(destination: str, paths: set[str]) -> None:
    """Remove files of an old version, and the directories that become empty."""
    behind_link = _BehindLinks(destination)
    for path in sorted(paths, reverse=True):
        if behind_link(path):
            continue
        full = os.path.join(destination, path)
        try:
            os.rmdir(full) if is_directory(full) else os.unlink(full)
        except OSError as error:
            if error.errno not in (*_GONE, *_NOT_EMPTY):
                raise


class _BehindLinks:
    """Tells whether a path leads through a link, by which the program replaced a directory.

    What is behind it does not belong to the package.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._known: dict[str, bool] = {}

    def __call__(self, path: str) -> bool:
        parents = path.split("/")[:-1]
        found = False
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            if parent not in self._known:
                self._known[parent] = found or os.path.islink(os.path.join(self._destination, parent))
            found = self._known[parent]
        return found


def write_staged_key(staged_dir: str, package: PackageSpec) -> None:
    """Record which package was unpacked in ``staged_dir``."""
    write_json(f"{staged_dir}.json", _key(package))


def _key(package: PackageSpec) -> str:
    return " ".join((package.source, package.version, package.sha256))


def label(package: PackageSpec | None) -> str:
    """Name a package in messages, without the credentials of its URL."""
    if package is None:
        return "nothing"
    return f"{source_without_credentials(package.source)} (version {package.version})"


def is_temporary(error: OSError) -> bool:
    """Return whether the cause may go away by itself; a full volume or a missing permission does not."""
    return error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.ENOENT, errno.EBUSY)
