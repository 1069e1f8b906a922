"""Move the files of a task's packages from the staging directory into place, and remove old ones.

``place`` moves files by rename, removes what an earlier version of the task's packages had and the
required ones do not, and leaves alone what the program created itself. If it is interrupted, the
next call completes it: the manifest then names the files of both versions.

Everything is kept in ``<destination>/.galaxy/``: ``<task>.json``, the manifest (package to its files),
and ``<task>.<n>/``, the n-th staged package, with ``<task>.<n>.json`` naming the package.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from typing import Final

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.redaction import source_without_credentials
from galaxy.worker_entry.logic.archive import RESERVED

MEMBERS_MAX: Final = 500_000
"""Limit on the files of one archive, and on staged packages."""


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
    hidden = os.path.join(destination, RESERVED)
    try:
        old = _read_manifest(os.path.join(hidden, f"{task}.json"))
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
        os.makedirs(hidden, exist_ok=True)
        both = {key: sorted({*old.get(key, []), *new.get(key, [])}) for key in {**old, **new}}
        _write_json(os.path.join(hidden, f"{task}.json"), both)
        for staged_dir, _ in staged:
            _move(staged_dir, destination)
        keep = {path for paths in new.values() for path in paths}
        _remove_files(destination, {path for paths in old.values() for path in paths} - keep)
        _write_json(os.path.join(hidden, f"{task}.json"), new)
        discard(task, destination)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UnpackFailed(
            f"cannot replace the package: {error.strerror}{where}", retry=is_temporary(error)
        ) from error


def discard(task: str, destination: str) -> None:
    """Remove what is staged for ``task``."""
    hidden = os.path.join(destination, RESERVED)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(hidden):
            if name.removesuffix(".json").rpartition(".")[0] == task:
                path = os.path.join(hidden, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)


# ---- moving files


def _staged(hidden: str, task: str) -> Iterator[tuple[str, str]]:
    """Yield the directory and the key of each staged package."""
    for number in range(MEMBERS_MAX):
        staged_dir = os.path.join(hidden, f"{task}.{number}")
        try:
            with open(f"{staged_dir}.json", encoding="utf-8") as file:
                yield staged_dir, str(json.load(file))
        except (FileNotFoundError, ValueError):
            return


def _paths(root: str) -> Iterator[str]:
    """Yield every path below ``root``, relative to it."""
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), root)


def _check_conflicts(staged_dir: str, destination: str, ours: set[str]) -> None:
    """Refuse, before anything is moved, a file at whose path the program has created a directory."""
    for path in _paths(staged_dir):
        here, there = os.path.join(staged_dir, path), os.path.join(destination, path)
        if not _is_directory(there) or _is_directory(here):
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
            if os.path.lexists(target) and not _is_directory(target):
                os.unlink(target)
            os.makedirs(target, exist_ok=True)
        for name in files:
            target = os.path.normpath(os.path.join(destination, base, name))
            if _is_directory(target):
                shutil.rmtree(target)
            os.replace(os.path.join(directory, name), target)


def _remove_files(destination: str, paths: set[str]) -> None:
    """Remove files of an old version, and the directories that become empty."""
    for path in sorted(paths, reverse=True):
        if ".." in path.split("/") or path.startswith("/"):
            continue  # The program can write the manifest; it must not name files elsewhere.
        full = os.path.join(destination, path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not _is_directory(full):
                os.unlink(full)
                continue
            try:
                os.rmdir(full)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                    raise


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _read_manifest(path: str) -> dict[str, list[str]]:
    try:
        with open(path, encoding="utf-8") as file:
            read = json.load(file)
        return {str(key): [str(name) for name in names] for key, names in read.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def _write_json(path: str, value: object) -> None:
    with open(f"{path}~", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(f"{path}~", path)


def write_staged_key(staged_dir: str, package: PackageSpec) -> None:
    """Record which package was unpacked in ``staged_dir``."""
    _write_json(f"{staged_dir}.json", _key(package))


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
