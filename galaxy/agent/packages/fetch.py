"""Fetch one package in a short-lived process, so that a server that hangs never blocks the agent.

``python -m galaxy.agent.packages.fetch`` reads a ``FetchOrder`` from stdin, writes the archive to
the descriptor named there and a ``FetchOutcome`` to stdout. This also keeps what fsspec needs
(aiohttp, an event loop) out of the agent's memory. The process dies with its parent.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from typing import Any, Final

from galaxy.container.kernel.prctl import die_with_parent
from galaxy.model.base import Struct, decode, encode
from galaxy.model.redaction import redact

CHUNK_BYTES: Final = 1024 * 1024
PROTOCOLS: Final = ("http", "https", "ftp", "s3", "hdfs", "file")
ERROR_MAX: Final = 300
"""Longest error text passed on from a library, in characters."""


class FetchOrder(Struct, frozen=True, kw_only=True):
    """Write the archive that ``source`` names to ``fd``, within a size and a time."""

    source: str
    fd: int
    bytes_max: int
    timeout_s: float


class FetchOutcome(Struct, frozen=True, kw_only=True):
    """The archive's digest and size in bytes, or ``error``; ``retry``: trying again may help.

    ``elsewhere``: the cause is this host, and another host may succeed.
    """

    sha256: str = ""
    size: int = 0
    error: str = ""
    retry: bool = False
    elsewhere: bool = False


def copy(reader: Any, fd: int, bytes_max: int) -> FetchOutcome:
    """Copy a readable to ``fd`` and compute its digest. More than ``bytes_max`` bytes are an error."""
    digest, size = hashlib.sha256(), 0
    while chunk := reader.read(CHUNK_BYTES):
        size += len(chunk)
        if size > bytes_max:
            return FetchOutcome(error=f"is larger than the limit of {bytes_max} bytes")
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
    return FetchOutcome(sha256=digest.hexdigest(), size=size)


def fetch(order: FetchOrder) -> FetchOutcome:
    """Fetch through fsspec. Every error becomes an outcome with its cause."""
    protocol = order.source.partition("://")[0].lower()
    try:
        filesystem, path = _filesystem(protocol, order)
        # Stream, with a size given so that fsspec does not ask for it: saves one or two requests.
        options: dict[str, Any] = {"block_size": 0, "size": -1} if protocol in ("http", "https") else {}
        with filesystem.open(path, "rb", **options) as reader:
            return copy(reader, order.fd, order.bytes_max)
    except ImportError as error:
        return FetchOutcome(
            error=f"{protocol} packages need one more Python package on the host: {error}", elsewhere=True
        )
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return FetchOutcome(error=f"{type(error).__name__}: {redact(str(error), order.source)}")
    except Exception as error:  # noqa: BLE001 - any library's own error becomes the outcome
        status = getattr(error, "status", 0)
        gone = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
        return FetchOutcome(error=_text_of(error, order.source), retry=not gone)


def _text_of(error: Exception, source: str) -> str:
    """Return an error's text without the secrets of ``source``, in one line and with a bounded length."""
    text = " ".join(redact(str(error), source).split()) or type(error).__name__
    return text if len(text) <= ERROR_MAX else text[:ERROR_MAX] + "..."


def _filesystem(protocol: str, order: FetchOrder) -> tuple[Any, str]:
    import fsspec

    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=order.timeout_s, sock_connect=10, sock_read=30)
        options = {"client_kwargs": {"timeout": timeout}}
    filesystem, path = fsspec.core.url_to_fs(order.source, use_listings_cache=False, **options)
    return filesystem, path


def main() -> int:
    """Fetch the package that the order on stdin names."""
    die_with_parent()
    order = decode(sys.stdin.buffer.read(), FetchOrder)
    signal.alarm(int(order.timeout_s) + 5)
    outcome = fetch(order)
    sys.stdout.buffer.write(encode(outcome))
    sys.stdout.buffer.flush()
    # Exit at once: an event loop that fsspec left running would delay a normal exit.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
