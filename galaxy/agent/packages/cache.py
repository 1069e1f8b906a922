"""Packages: fetched once a host, checked, cached within bounds, handed out as open files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from galaxy.agent.packages.fetch import PROTOCOLS, FetchOrder, FetchOutcome, copy, without_secrets
from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode
from galaxy.statemachine.backoff import delay_after

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
TRIES: Final = 3
UNPINNED_S: Final = 60.0
"""How long a remote package without a sha256 is taken as the same."""
WAITING_MAX: Final = 256
THREADS: Final = 4


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An open file, the receiver's to close; or ``error``, and whether to ask again later."""

    fd: int = -1
    error: str = ""
    retry: bool = True


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which archive: ``sha256`` empty takes whatever ``source`` names."""

    source: str
    version: str
    sha256: str = ""


class PackageRefused(Exception):
    """A source that is never fetched; the text says why."""


Done = Callable[[Fetched], None]


class Packages:
    """The cache below ``directory``; threads are made when something is fetched."""

    def __init__(
        self,
        directory: Path,
        roots: Sequence[Path],
        *,
        bytes_max: int,
        package_bytes_max: int,
        timeout_s: float,
        retry_s: float = 0.5,
    ) -> None:
        self._directory = directory
        self._roots = tuple(os.path.realpath(root) for root in roots)
        self._bytes_max = bytes_max
        self._package_bytes_max = package_bytes_max
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Done]] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="package")
        self._closing = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in directory.glob("tmp.*"):
            left.unlink(missing_ok=True)

    def want(self, asked: Asked, done: Done) -> None:
        """Get an archive; ``done`` is called once, here or in another thread.

        Everybody who wants the same thing while it is fetched shares one fetch.
        """
        try:
            key = self._key(asked)
        except PackageRefused as refused:
            done(Fetched(error=str(refused), retry=False))
            return
        fd = self._cached(key, pinned=bool(asked.sha256) or key.startswith("f"))
        if fd >= 0:
            done(Fetched(fd=fd))
            return
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.append(done)
                return
            full = len(self._waiting) >= WAITING_MAX or self._closing.is_set()
            if not full:
                self._waiting[key] = [done]
        if full:
            done(Fetched(error="too many packages are being fetched on this host"))
            return
        self._pool.submit(self._serve, key, asked)

    def close(self) -> None:
        """Stop fetching; whoever waits is told."""
        self._closing.set()
        with self._lock:
            children = list(self._children)
        for child in children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=False)

    def trim(self, free_bytes: int = 0) -> int:
        """Remove what was longest not used until the cache is within bounds; return the bytes left."""
        entries = []
        for entry in os.scandir(self._directory):
            with contextlib.suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                entries.append((facts.st_atime_ns, facts.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total + free_bytes <= self._bytes_max:
                break
            if os.path.basename(path).startswith("tmp."):
                continue
            with contextlib.suppress(OSError):
                os.unlink(path)
                total -= size
        return total

    # ---- which one

    def _key(self, asked: Asked) -> str:
        """Return the name in the cache; a source that is not allowed is refused here."""
        protocol, path = self._protocol(asked.source)
        if asked.sha256:
            if not _SHA256.fullmatch(asked.sha256):
                raise PackageRefused(f"{asked.sha256!r} is not a sha256")
            return asked.sha256
        identity = [asked.source, asked.version]
        if protocol == "file":
            with contextlib.suppress(OSError):
                facts = os.stat(path)
                identity += [
                    str(fact) for fact in (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
                ]
        digest = hashlib.blake2b("\x1f".join(identity).encode(), digest_size=24).hexdigest()
        return ("f-" if protocol == "file" else "u-") + digest

    def _protocol(self, source: str) -> tuple[str, str]:
        match = _URL.fullmatch(source)
        shown = without_secrets(source)
        if match is None and source.startswith("/"):
            protocol, path = "file", source
        elif match is None:
            raise PackageRefused(f"package source {shown!r} is not a URL; relative paths end at the client")
        else:
            protocol, path = match[1].lower(), match[2]
        if protocol not in PROTOCOLS or "::" in source:
            raise PackageRefused(
                f"package source {shown!r}: only {', '.join(PROTOCOLS)} are fetched, without chains"
            )
        if protocol == "file" and match is not None:
            try:
                parts = urllib.parse.urlsplit(source)
            except ValueError as error:
                raise PackageRefused(f"package source {shown!r} is not a URL: {error}") from error
            if parts.netloc not in ("", "localhost"):
                raise PackageRefused(
                    f"package source {shown!r} names the host {parts.netloc!r}; use http or s3"
                )
            path = urllib.parse.unquote(parts.path)
        if protocol == "file" and ("\0" in path or not self._below_root(os.path.realpath(path))):
            raise PackageRefused(self._outside(path))
        return protocol, path

    def _below_root(self, real: str) -> bool:
        return any(os.path.commonpath((root, real)) == root for root in self._roots)

    def _outside(self, path: str) -> str:
        roots = ", ".join(self._roots) or "none is configured"
        return f"file {path!r} is not below a package root of this host ({roots})"

    # ---- getting it

    def _cached(self, key: str, *, pinned: bool) -> int:
        path = self._directory / key
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return -1
        facts = os.fstat(fd)
        if not pinned and time.time() - facts.st_mtime > UNPINNED_S:
            os.close(fd)
            return -1
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), facts.st_mtime_ns))
        return fd

    def _serve(self, key: str, asked: Asked) -> None:
        try:
            outcome = self._get(key, asked)
        except OSError as error:
            outcome = Fetched(error=f"cannot keep the package: {error.strerror or error}")
        except PackageRefused as refused:
            outcome = Fetched(error=str(refused), retry=False)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
            outcome = Fetched(error=f"{type(error).__name__}: {error}")
        with self._lock:
            waiting = self._waiting.pop(key)
        for done in waiting:
            if outcome.error:
                done(outcome)
                continue
            fd = self._cached(key, pinned=True)
            done(
                Fetched(fd=fd) if fd >= 0 else Fetched(error="the package left the cache at once; it is full")
            )

    def _get(self, key: str, asked: Asked) -> Fetched:
        if self._cached_now(key, asked):
            return Fetched()
        protocol, path = self._protocol(asked.source)
        outcome = FetchOutcome(error="the agent is ending", retry=True)
        for attempt in range(TRIES):
            if attempt and self._closing.wait(delay_after(attempt, first_s=self._retry_s)):
                break
            outcome = self._try(key, asked, protocol, path)
            if not outcome.error or not outcome.retry:
                break
        if outcome.error:
            return Fetched(error=outcome.error, retry=outcome.retry)  # Who asked names the source.
        self.trim()
        return Fetched()

    def _cached_now(self, key: str, asked: Asked) -> bool:
        fd = self._cached(key, pinned=bool(asked.sha256) or key.startswith("f"))
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def _try(self, key: str, asked: Asked, protocol: str, path: str) -> FetchOutcome:
        """Fetch into a file of its own, check it, and only then give it its name."""
        part = self._directory / f"tmp.{os.getpid()}.{threading.get_ident()}"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
        try:
            outcome = self._local(path, fd) if protocol == "file" else self._remote(asked.source, fd)
            if not outcome.error and asked.sha256 and outcome.sha256 != asked.sha256:
                return FetchOutcome(
                    error=f"sha256 is {outcome.sha256}, the job says {asked.sha256}", size=outcome.size
                )
            if not outcome.error:
                # By our own clock, as every later use: the kernel's is a few milliseconds behind.
                os.utime(fd, ns=(time.time_ns(), time.time_ns()))
                os.rename(part, self._directory / key)
            return outcome
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)

    def _local(self, path: str, fd: int) -> FetchOutcome:
        """Copy a host's file: what was really opened must lie below a root, whatever links say."""
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return FetchOutcome(
                error=error.strerror or str(error), retry=not isinstance(error, FileNotFoundError)
            )
        with open(source, "rb", buffering=0) as reader:
            if not self._below_root(os.readlink(f"/proc/self/fd/{source}")):
                raise PackageRefused(self._outside(path))
            if not stat.S_ISREG(os.fstat(source).st_mode):
                return FetchOutcome(error="is not a regular file")
            return copy(reader, fd, self._package_bytes_max)

    def _remote(self, source: str, fd: int) -> FetchOutcome:
        order = FetchOrder(source=source, fd=fd, bytes_max=self._package_bytes_max, timeout_s=self._timeout_s)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
        child = subprocess.Popen(
            [sys.executable, "-m", "galaxy.agent.packages.fetch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd,),
            env=environment,
            cwd="/",
        )
        with self._lock:
            self._children.add(child)
        if self._closing.is_set():
            child.kill()
        try:
            said, _ = child.communicate(encode(order), timeout=self._timeout_s + 10)
            return decode(said, FetchOutcome)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate(timeout=10)
            return FetchOutcome(error=f"no end after {self._timeout_s:g} s", retry=True)
        except BadMessage:
            return FetchOutcome(error=f"the fetching process ended with {child.returncode}", retry=True)
        finally:
            with self._lock:
                self._children.discard(child)
