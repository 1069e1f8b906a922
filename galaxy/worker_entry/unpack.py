"""Unpacking archives into a staging directory inside their destination.

This is the first of two steps; ``package_files.place`` is the second. Both run in a child with the
program's own privileges, in its cgroup, so a hostile archive can do no more than the program could.
``stage`` changes nothing at the destination itself, whatever the archive contains.
"""

from __future__ import annotations

import bz2
import contextlib
import encodings.cp437
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from typing import IO, Final, Self, cast

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.worker_entry.logic.archive import MemberRefused, safe_mode, safe_name, safe_symlink
from galaxy.worker_entry.package_files import (
    MEMBERS_MAX,
    UnpackFailed,
    discard,
    is_temporary,
    label,
    write_staged_key,
)
from galaxy.worker_entry.package_records import own_directory

_CHUNK: Final = 256 * 1024
_TAIL_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest padding after a tar's end mark. Writers fill blocks of 10 KiB, sometimes of 1 MiB."""
_PRELOADED: Final = (bz2, gzip, lzma, encodings.cp437)
"""Modules that tarfile and zipfile import on first use, when nothing can be imported any more."""


class ArchiveFile(io.RawIOBase):
    """An open archive read by offset, because other processes share its file position."""

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
    """A member whose header must be valid; tarfile takes a damaged or missing one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is damaged or cut off: {error}") from error


def stage(task: str, destination: str, packages: list[tuple[PackageSpec, int]]) -> None:
    """Unpack (package, open file) pairs in the staging directory; what was staged before is removed.

    Raises:
        UnpackFailed: an archive is malformed, is refused, or does not fit.
    """
    package = packages[0][0] if packages else None
    try:
        hidden = own_directory(destination, create=True)
        discard(task, destination)
        for number, (package, fd) in enumerate(packages):
            staged = os.path.join(hidden, f"{task}.{number}")
            os.mkdir(staged)
            _extract(fd, staged)
            write_staged_key(staged, package)
    except OSError as error:
        with contextlib.suppress(OSError):
            discard(task, destination)
        why = error.strerror or str(error)  # Errors of gzip and bz2 have no number.
        raise UnpackFailed(f"cannot unpack {label(package)}: {why}", retry=is_temporary(error)) from error
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
        raise UnpackFailed(f"refused to unpack {label(package)}: {error}", retry=False) from error
    except (ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, OverflowError) as error:
        with contextlib.suppress(OSError):
            discard(task, destination)
        raise UnpackFailed(
            f"refused to unpack {label(package)}: not a valid archive: {error}", retry=False
        ) from error


# ---- archives


def _extract(fd: int, staged: str) -> None:
    head = os.pread(fd, 4, 0)
    with io.BufferedReader(ArchiveFile(fd), _CHUNK) as file:
        if head[:2] == b"PK":
            _extract_zip(cast(IO[bytes], file), staged)
        else:
            _extract_tar(cast(IO[bytes], file), staged)


def _open_tar(file: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:*", tarinfo=_Member)
    except tarfile.ReadError as error:
        raise MemberRefused("it is neither a valid tar archive (plain, gzip, bzip2, xz) nor a zip") from error


def _extract_tar(file: IO[bytes], staged: str) -> None:
    with _open_tar(file) as tar:
        for count, member in enumerate(iter(tar.next, None)):
            assert member is not None
            tar.members = []  # type: ignore[attr-defined]  # Otherwise memory grows with every member.
            if count >= MEMBERS_MAX:
                raise MemberRefused(f"more than {MEMBERS_MAX} members")
            name = safe_name(member.name)
            if not name:
                continue
            path = _prepare_path(staged, name)
            if member.isdir():
                _make_directory(path)
            elif member.issym():
                os.symlink(safe_symlink(name, member.linkname), path)
            elif member.islnk():
                source = _find(staged, safe_name(member.linkname))
                if source is None or not stat.S_ISREG(os.lstat(source).st_mode):
                    raise MemberRefused(
                        f"hard link {name!r} to {member.linkname!r}, which is no earlier file"
                    )
                os.link(source, path, follow_symlinks=False)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                _write_file(path, content, safe_mode(member.mode), float(member.mtime))
            else:
                raise MemberRefused(f"member {name!r} is a device or a pipe")
        # Read to the end: that is where a compressed archive has its checksum.
        if tar.fileobj is not None and len(tar.fileobj.read(_TAIL_BYTES_MAX)) == _TAIL_BYTES_MAX:
            raise MemberRefused("more than 4 MiB follow the end of the archive")


def _extract_zip(file: IO[bytes], staged: str) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS_MAX:
            raise MemberRefused(f"more than {MEMBERS_MAX} members")
        for member in members:
            name = safe_name(member.filename)
            if not name:
                continue
            mode = member.external_attr >> 16
            path = _prepare_path(staged, name)
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


def _prepare_path(root: str, name: str) -> str:
    """Return the path for ``name``; its parents become real directories."""
    parent, _, last = name.rpartition("/")
    path = root
    for part in parent.split("/") if parent else ():
        path = os.path.join(path, part)
        _make_directory(path)
    path = os.path.join(path, last)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)  # A later member replaces an earlier one of the same name.
    return path


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise MemberRefused(
                f"{os.path.basename(path)!r} is both a directory and something else"
            ) from None


def _find(root: str, name: str) -> str | None:
    """Return the path of an unpacked member, or None; parents that are links are not followed."""
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
