"""The package cache of one host: it fetches archives once, checks them and returns them as open files."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from galaxy.agent.packages.fetch import FetchOrder, FetchOutcome, copy
from galaxy.agent.packages.sources import PackageId, PackageRefused, PackageSources
from galaxy.agent.packages.stored import StoredPackages, fetch_stored
from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode
from galaxy.model.jobspec.package_source import STORED
from galaxy.model.redaction import redact
from galaxy.statemachine.backoff import delay_after

TRIES_MAX: Final = 3
UNPINNED_S: Final = 60.0
"""How long a fetched archive without a sha256 is reused before it is fetched again."""
WAITING_MAX: Final = 256
THREADS: Final = 4


class FetchedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """An open file, which the receiver closes; or ``error``, and whether to ask again later.

    ``elsewhere``: the cause is this host, and another host may succeed.
    """

    fd: int = -1
    error: str = ""
    retry: bool = True
    elsewhere: bool = False


Done = Callable[[FetchedPackage], None]


class PackageCache:
    """Archives below ``directory``, up to ``bytes_max``. Its threads start with the first fetch.

    ``stored`` has the packages that the cluster stores.
    """

    def __init__(
        self,
        directory: Path,
        roots: Sequence[Path],
        *,
        stored: StoredPackages,
        bytes_max: int,
        package_bytes_max: int,
        timeout_s: float,
        retry_s: float = 0.5,
    ) -> None:
        self._directory = directory
        self._sources = PackageSources(roots)
        self._stored = stored
        self._bytes_max = bytes_max
        self._package_bytes_max = package_bytes_max
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Done]] = {}
        """By cache name of a package that is being fetched: the callbacks of its requests."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="package")
        self._closing = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for abandoned in directory.glob("tmp.*"):
            abandoned.unlink(missing_ok=True)

    def request(self, package: PackageId, done: Done) -> None:
        """Get an archive; ``done`` is called once, in this or another thread.

        Concurrent requests for the same archive share one fetch.
        """
        try:
            name = self._sources.cache_name(package)
        except PackageRefused as refused:
            done(FetchedPackage(error=str(refused), retry=False, elsewhere=refused.elsewhere))
            return
        fd = self._open_cached(name, pinned=_is_pinned(name))
        if fd >= 0:
            done(FetchedPackage(fd=fd))
            return
        with self._lock:
            waiting = self._waiting.get(name)
            if waiting is not None:
                waiting.append(done)
                return
            full = len(self._waiting) >= WAITING_MAX or self._closing.is_set()
            if not full:
                self._waiting[name] = [done]
        if full:
            done(FetchedPackage(error="too many packages are being fetched on this host"))
            return
        self._pool.submit(self._serve, name, package)

    def close(self) -> None:
        """Stop fetching; pending requests are answered with an error."""
        self._closing.set()
        with self._lock:
            children = list(self._children)
        for child in children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=False)

    def trim(self, free_bytes: int = 0) -> int:
        """Remove the least recently used archives beyond the bound; return the bytes left.

        With ``free_bytes``, that much more is freed.
        """
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

    # ---- the cache

    def _open_cached(self, name: str, *, pinned: bool) -> int:
        """Return an open file, or -1 if the archive is not cached or, unpinned, is too old."""
        path = self._directory / name
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

    def _is_cached(self, name: str) -> bool:
        fd = self._open_cached(name, pinned=_is_pinned(name))
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    # ---- fetching; in a thread of the pool

    def _serve(self, name: str, package: PackageId) -> None:
        """Fetch an archive and answer every request for it."""
        try:
            outcome = self._fetch(name, package)
        except OSError as error:
            outcome = FetchedPackage(error=f"cannot store the package: {error.strerror or error}")
        except PackageRefused as refused:
            outcome = FetchedPackage(error=str(refused), retry=False, elsewhere=refused.elsewhere)
        except Exception as error:  # noqa: BLE001 - every request must be answered, whatever failed
            outcome = FetchedPackage(error=f"{type(error).__name__}: {redact(str(error), package.source)}")
        with self._lock:
            waiting = self._waiting.pop(name)
        for done in waiting:
            if outcome.error:
                done(outcome)
                continue
            fd = self._open_cached(name, pinned=True)
            evicted = FetchedPackage(error="the package was evicted at once: the cache is full")
            done(FetchedPackage(fd=fd) if fd >= 0 else evicted)

    def _fetch(self, name: str, package: PackageId) -> FetchedPackage:
        if self._is_cached(name):
            return FetchedPackage()
        protocol, path = self._sources.parse(package.source)
        outcome = FetchOutcome(error="the agent is ending", retry=True)
        for attempt in range(TRIES_MAX):
            if attempt and self._closing.wait(delay_after(attempt, first_s=self._retry_s)):
                break
            outcome = self._try(name, package, protocol, path)
            if not outcome.error or not outcome.retry:
                break
        if outcome.error:
            # AppWorker adds the source.
            return FetchedPackage(error=outcome.error, retry=outcome.retry, elsewhere=outcome.elsewhere)
        self.trim()
        return FetchedPackage()

    def _try(self, name: str, package: PackageId, protocol: str, path: str) -> FetchOutcome:
        """Fetch into a temporary file, check it, and only then give it its name."""
        part = self._directory / f"tmp.{os.getpid()}.{threading.get_ident()}"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
        try:
            if protocol == "file":
                outcome = self._copy_local(path, fd)
            elif protocol == STORED:
                outcome = fetch_stored(
                    self._stored, path, fd,
                    bytes_max=self._package_bytes_max, timeout_s=self._timeout_s, ending=self._closing.is_set,
                )  # fmt: skip
            else:
                outcome = self._fetch_remote(package.source, fd)
            if not outcome.error and package.sha256 and outcome.sha256 != package.sha256:
                return FetchOutcome(
                    error=f"sha256 is {outcome.sha256}, the job says {package.sha256}",
                    size=outcome.size,
                    elsewhere=protocol == "file",
                )
            if not outcome.error:
                # Stamped by time.time(), as at every later use: the kernel's stamps are some ms behind it.
                os.utime(fd, ns=(time.time_ns(), time.time_ns()))
                os.rename(part, self._directory / name)
            return outcome
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)

    def _copy_local(self, path: str, fd: int) -> FetchOutcome:
        """Copy a file of the host. The file that was opened, links resolved, must be below a root."""
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return FetchOutcome(error=error.strerror or str(error), retry=not missing, elsewhere=True)
        try:
            if not self._sources.is_below_root(os.readlink(f"/proc/self/fd/{source}")):
                raise self._sources.outside(path)
            if not stat.S_ISREG(os.fstat(source).st_mode):
                return FetchOutcome(error="is not a regular file", elsewhere=True)
            with open(source, "rb", buffering=0, closefd=False) as reader:
                return copy(reader, fd, self._package_bytes_max)
        finally:
            os.close(source)

    def _fetch_remote(self, source: str, fd: int) -> FetchOutcome:
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
            answer, _ = child.communicate(encode(order), timeout=self._timeout_s + 10)
            return decode(answer, FetchOutcome)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate(timeout=10)
            return FetchOutcome(error=f"not fetched within {self._timeout_s:g} s", retry=True)
        except BadMessage:
            return FetchOutcome(
                error=f"the process that fetches it exited with {child.returncode}", retry=True
            )
        finally:
            with self._lock:
                self._children.discard(child)


def _is_pinned(name: str) -> bool:
    """Return whether the cache name identifies the content: by sha256, or by inode and times of a file."""
    return not name.startswith("u-")
