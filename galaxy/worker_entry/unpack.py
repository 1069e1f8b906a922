"""Archives into a directory, in two steps: unpacked aside, then moved in place.

Both steps run in a child with the program's own rights, in its cgroup, so a hostile archive
can do no more than the program could. ``stage`` leaves the destination as it was, whatever is
in the archive. ``place`` moves files by rename, removes what an earlier version of the task's
packages had and the wanted ones do not, and leaves alone what the program made itself. If it
is interrupted, the next one completes it: the manifest names everything that may be there.

All in ``<destination>/.galaxy/``: ``<task>.json``, a manifest (package to its files), and
``<task>.<n>/``, the n-th package unpacked aside, with ``<task>.<n>.json`` telling which one.
"""

from __future__ import annotations

import bz2
import contextlib
import encodings.cp437
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Final, Self, cast

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.worker_entry.logic.archive import RESERVED, MemberRefused, safe_mode, safe_name, safe_symlink

MEMBERS_MAX: Final = 500_000
_CHUNK: Final = 256 * 1024
_TAIL_BYTES_MAX: Final = 4 * 1024 * 1024
"""Padding behind a tar's end mark; writers fill up blocks of 10 KiB, at times of 1 MiB."""
_PRELOADED: Final = (bz2, gzip, lzma, encodings.cp437)
"""tarfile and zipfile import these when they meet such a file; by then there is nothing to import from."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class Failed(Exception):
    """Unpacking cannot be done; ``retry`` says whether another try may help."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


class Archive(io.RawIOBase):
    """An open archive, read by offset: whoever shares the open file does not disturb us."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._size = os.fstat(fd).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(origin + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count


class _Member(tarfile.TarInfo):
    """A member whose header must be sound: tarfile takes a damaged or missing one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is damaged or cut off: {error}") from error


def stage(task: str, destination: str, packages: list[tuple[PackageSpec, int]]) -> None:
    """Unpack (package, open file) pairs aside in ``destination``; what was aside before goes.

    Raises:
        Failed: an archive is not one, is refused, or does not fit.
    """
    hidden = os.path.join(destination, RESERVED)
    package = packages[0][0] if packages else None
    try:
        os.makedirs(hidden, exist_ok=True)
        discard(task, destination)
        for number, (package, fd) in enumerate(packages):
            aside = os.path.join(hidden, f"{task}.{number}")
            os.mkdir(aside)
            _extract(fd, aside)
            _write_json(f"{aside}.json", _key(package))
    except OSError as error:
        with contextlib.suppress(OSError):
            discard(task, destination)
        why = error.strerror or str(error)  # Damage in gzip and bz2 has no number.
        raise Failed(f"cannot unpack {label(package)}: {why}", retry=_passing(error)) from error
    except (
        MemberRefused,
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
    ) as error:
        with contextlib.suppress(OSError):
            discard(task, destination)
        raise Failed(f"refused to unpack {label(package)}: {error}", retry=False) from error
    except (ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, OverflowError) as error:
        with contextlib.suppress(OSError):
            discard(task, destination)
        raise Failed(
            f"refused to unpack {label(package)}: not a sound archive: {error}", retry=False
        ) from error


def place(task: str, destination: str, wanted: list[PackageSpec]) -> None:
    """Move what is aside in place; of the task's files here only those of ``wanted`` remain.

    Raises:
        Failed: a file cannot be moved, or something that is no package's is in its way.
    """
    hidden = os.path.join(destination, RESERVED)
    try:
        old = _read_manifest(os.path.join(hidden, f"{task}.json"))
        keys = [_key(package) for package in wanted]
        # Something else may lie aside, of a deployment that a newer order overtook.
        staged = [(aside, key) for aside, key in _staged(hidden, task) if key in keys]
        if lost := set(keys) - set(old) - {key for _, key in staged}:
            raise Failed(f"unpacked files are gone: {', '.join(sorted(lost))}", retry=True)
        for aside, _ in staged:
            _check_room(aside, destination, {path for paths in old.values() for path in paths})
        new = {key: old.get(key, []) for key in keys}
        new |= {key: sorted(_paths(aside)) for aside, key in staged}
        if not new and not old:
            discard(task, destination)
            return
        os.makedirs(hidden, exist_ok=True)
        both = {key: sorted({*old.get(key, []), *new.get(key, [])}) for key in {**old, **new}}
        _write_json(os.path.join(hidden, f"{task}.json"), both)
        for aside, _ in staged:
            _move(aside, destination)
        keep = {path for paths in new.values() for path in paths}
        _withdraw(destination, {path for paths in old.values() for path in paths} - keep)
        _write_json(os.path.join(hidden, f"{task}.json"), new)
        discard(task, destination)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise Failed(f"cannot replace the package: {error.strerror}{where}", retry=_passing(error)) from error


def discard(task: str, destination: str) -> None:
    """Remove what is aside for ``task``."""
    hidden = os.path.join(destination, RESERVED)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(hidden):
            if name.removesuffix(".json").rpartition(".")[0] == task:
                path = os.path.join(hidden, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)


# ---- out of the archive


def _extract(fd: int, aside: str) -> None:
    head = os.pread(fd, 4, 0)
    with io.BufferedReader(Archive(fd), _CHUNK) as file:
        if head[:2] == b"PK":
            _extract_zip(cast(IO[bytes], file), aside)
        else:
            _extract_tar(cast(IO[bytes], file), aside)


def _open_tar(file: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:*", tarinfo=_Member)
    except tarfile.ReadError as error:
        raise MemberRefused("it is neither a sound tar archive (plain, gzip, bzip2, xz) nor a zip") from error


def _extract_tar(file: IO[bytes], aside: str) -> None:
    with _open_tar(file) as tar:
        for count, member in enumerate(iter(tar.next, None)):
            assert member is not None
            tar.members = []  # type: ignore[attr-defined]  # Or memory grows with every member.
            if count >= MEMBERS_MAX:
                raise MemberRefused(f"more than {MEMBERS_MAX} members")
            name = safe_name(member.name)
            if not name:
                continue
            path = _make_way(aside, name)
            if member.isdir():
                _make_directory(path)
            elif member.issym():
                os.symlink(safe_symlink(name, member.linkname), path)
            elif member.islnk():
                source = _walk(aside, safe_name(member.linkname))
                if source is None or not stat.S_ISREG(os.lstat(source).st_mode):
                    raise MemberRefused(
                        f"hard link {name!r} to {member.linkname!r}, which is not a file before it"
                    )
                os.link(source, path, follow_symlinks=False)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                _write_file(path, content, safe_mode(member.mode), float(member.mtime))
            else:
                raise MemberRefused(f"member {name!r} is a device or a pipe")
        # What was compressed has its checksum at its very end.
        if tar.fileobj is not None and len(tar.fileobj.read(_TAIL_BYTES_MAX)) == _TAIL_BYTES_MAX:
            raise MemberRefused("much more follows the end of the archive")


def _extract_zip(file: IO[bytes], aside: str) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS_MAX:
            raise MemberRefused(f"more than {MEMBERS_MAX} members")
        for member in members:
            name = safe_name(member.filename)
            if not name:
                continue
            mode = member.external_attr >> 16
            path = _make_way(aside, name)
            if member.is_dir():
                _make_directory(path)
            elif stat.S_ISLNK(mode):
                target = archive.read(member).decode() if member.file_size <= 4096 else ""
                os.symlink(safe_symlink(name, target), path)
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    _write_file(path, content, safe_mode(mode), None)
            else:
                raise MemberRefused(f"member {name!r} is a device or a pipe")


def _make_way(root: str, name: str) -> str:
    """Return where ``name`` goes: its parents are real directories, made if need be."""
    parent, _, last = name.rpartition("/")
    path = root
    for part in parent.split("/") if parent else ():
        path = os.path.join(path, part)
        _make_directory(path)
    path = os.path.join(path, last)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)  # A later member of the same name wins.
    return path


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise MemberRefused(
                f"{os.path.basename(path)!r} is a directory and something else, too"
            ) from None


def _walk(root: str, name: str) -> str | None:
    path = root
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if not os.path.isdir(path) or os.path.islink(path):
            return None
    path = os.path.join(root, name)
    return path if os.path.lexists(path) else None


def _write_file(path: str, content: IO[bytes], mode: int, mtime: float | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        shutil.copyfileobj(content, file, _CHUNK)
        os.fchmod(file.fileno(), mode)
        if mtime is not None:
            with contextlib.suppress(OverflowError, OSError):
                os.utime(file.fileno(), (mtime, mtime))


# ---- from aside to in place


def _staged(hidden: str, task: str) -> Iterator[tuple[str, str]]:
    for number in range(MEMBERS_MAX):
        aside = os.path.join(hidden, f"{task}.{number}")
        try:
            with open(f"{aside}.json", encoding="utf-8") as file:
                yield aside, str(json.load(file))
        except (FileNotFoundError, ValueError):
            return


def _paths(root: str) -> Iterator[str]:
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), root)


def _check_room(aside: str, destination: str, ours: set[str]) -> None:
    """Refuse before anything is moved if a file's place is taken by a directory of the program's own."""
    for path in _paths(aside):
        here, there = os.path.join(aside, path), os.path.join(destination, path)
        if not _is_directory(there) or _is_directory(here):
            continue
        if path not in ours or any(os.path.join(path, below) not in ours for below in _paths(there)):
            message = f"{path!r} is a file in the package, and a directory with other files in {destination}"
            raise Failed(message, retry=False)


def _move(aside: str, destination: str) -> None:
    for directory, names, files in os.walk(aside):
        base = os.path.relpath(directory, aside)
        for name in list(names):
            source = os.path.join(directory, name)
            target = os.path.normpath(os.path.join(destination, base, name))
            if os.path.islink(source):  # A link to a directory is moved as the link it is.
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


def _withdraw(destination: str, paths: set[str]) -> None:
    """Remove files of an old version; a directory only if nothing is left in it."""
    for path in sorted(paths, reverse=True):
        if ".." in path.split("/") or path.startswith("/"):
            continue  # The manifest lies where the program can write; it is only ever its own to lose.
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


def _key(package: PackageSpec) -> str:
    return " ".join((package.source, package.version, package.sha256))


def label(package: PackageSpec | None) -> str:
    """Name a package for people: what they read never has the user and password of its URL."""
    if package is None:
        return "nothing"
    scheme, separator, rest = package.source.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path} (version {package.version})"


def _passing(error: OSError) -> bool:
    """Whether the cause may pass by itself: a full volume or a missing right does not."""
    return error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.ENOENT, errno.EBUSY)
