"""Standard streams that work however the caller left them: closed, full, broken, or of any encoding.

A missing stream is /dev/null. Text goes to pipes and files as UTF-8, and bytes that are not UTF-8
(surrogate escapes, PEP 383) go there unchanged; a terminal gets its own encoding, and what it cannot
show is replaced. When output cannot be written, one line on stderr says so. Then a command whose product
is the output ends; a command that does other work goes on without output, and keeps its exit code.
"""

from __future__ import annotations

import contextlib
import errno
import io
import locale
import os
import select
import sys
from typing import Any, Final, NoReturn, TextIO, cast

from galaxy.errors import GalaxyError

STDIN, STDOUT, STDERR = range(3)
NAMES: Final = ("standard input", "standard output", "standard error")
UTF8_OPTION: Final = ("-X", "utf8=1")


class OutputLost(Exception):
    """Standard output cannot be written, and the command has no other purpose."""


class OutputFile(io.RawIOBase):
    """Writes to a file descriptor without ever failing because of it, except by ``OutputLost``.

    ``on_failure`` is called for the first failed write; it may raise. What cannot be written is
    dropped. Later writes are tried again: a disk may have room later, and a log should continue.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.essential = False
        """Whether a failed write raises ``OutputLost``, once."""
        self.failure: OSError | None = None
        """The first failed write."""

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody can read what is written from now on."""
        return self.failure is not None and self.failure.errno in (errno.EPIPE, errno.EBADF, errno.EIO)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of ``data``, waiting where a descriptor does not block; return its length."""
        view = memoryview(data).cast("B")
        length = len(view)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                _await(self._fd, select.POLLOUT)
            except OSError as error:
                self._on_failure(error)
                break
        return length

    def _on_failure(self, error: OSError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if self._fd != STDOUT:
            return  # There is no place to report it.
        if self.essential:
            raise OutputLost(failure_text(STDOUT, error))
        line = f"galaxy: {failure_text(STDOUT, error)}; continuing without it\n"
        with contextlib.suppress(OSError):
            os.write(STDERR, line.encode())


class InputFile(io.RawIOBase):
    """Reads a file descriptor; an error is a ``GalaxyError`` that names the stream."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = read_input(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def prepare() -> None:
    """Replace ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` by streams as this module describes.

    With a locale whose encoding is not UTF-8, the interpreter is first executed again in its UTF-8
    mode, so that arguments and file names are read as the bytes that they are.
    """
    _fill_closed()
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode:
        execute_again(sys.orig_argv[1:], options=UTF8_OPTION)
    encodings = [_encoding(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)]
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(InputFile(STDIN)), encoding=encodings[STDIN], errors="surrogateescape"
    )
    sys.stdout = _output(STDOUT, encodings[STDOUT])
    sys.stderr = _output(STDERR, encodings[STDERR])


def read_input(bytes_max: int) -> bytes:
    """Read what standard input has now, waiting for at least one byte; empty at its end.

    Threads use this: a buffered reader has a lock, for which the interpreter does not wait when it
    ends; it aborts instead.

    Raises:
        GalaxyError: it cannot be read.
    """
    while True:
        try:
            return os.read(STDIN, bytes_max)
        except BlockingIOError:
            _await(STDIN, select.POLLIN)
        except OSError as error:
            raise GalaxyError(failure_text(STDIN, error)) from error


def execute_again(arguments: list[str], *, options: tuple[str, ...] = ()) -> NoReturn:
    """Replace this process by the same interpreter with ``options`` and the ``arguments``."""
    os.execv(sys.executable, [sys.executable, *options, *arguments])  # noqa: S606  (our own arguments)


def make_output_essential(*, essential: bool) -> None:
    """Choose what a failed write to standard output does: end the command, or only print a warning."""
    if (file := _output_file(sys.stdout)) is not None:
        file.essential = essential


def is_abandoned(stream: TextIO) -> bool:
    """Return whether nobody reads ``stream`` any more."""
    file = _output_file(stream)
    return file is not None and file.is_abandoned


def failure_text(fd: int, error: OSError) -> str:
    """Return one line about a failure of a standard stream."""
    verb = "read" if fd == STDIN else "write to"
    return f"cannot {verb} {NAMES[fd]}: {error.strerror}"


def _output_file(stream: TextIO) -> OutputFile | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, OutputFile) else None


def _output(fd: int, encoding: str) -> io.TextIOWrapper:
    file = OutputFile(fd)
    terminal = file.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(cast(Any, file)),
        encoding=encoding if terminal else "utf-8",
        errors="replace" if terminal else "surrogateescape",
        line_buffering=terminal or fd == STDERR,
    )


def _encoding(stream: TextIO | None) -> str:
    """Return the encoding of a terminal behind ``stream``."""
    if stream is None:
        return "utf-8"
    if "utf8" in sys._xoptions and not os.environ.get("PYTHONIOENCODING"):
        return locale.getencoding()
    return stream.encoding or "utf-8"


def _fill_closed() -> None:
    """Open /dev/null for each standard stream that is closed, before anything else gets its number."""
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY if fd == STDIN else os.O_WRONLY)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)


def _await(fd: int, event: int) -> None:
    """Wait until a descriptor that does not block is ready; another process may have made it so."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
