"""Send package files to the cluster, in chunks. What an earlier try has sent is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from galaxy.client.package_staging import PackageFile
from galaxy.client.transport import retry_while_away
from galaxy.errors import Conflict, SpecError
from galaxy.model.api.packages import PackageUpload
from galaxy.model.api.views import PackageView
from galaxy.nexus.packages import CHECKED_MAX, Packages

TRIES_MAX: Final = 3
"""Tries to send all chunks; the last of them may find that the upload expired or was stored meanwhile."""
Progress = Callable[[PackageFile, int], None]
"""Called with a file and how many of its bytes the cluster has."""


def upload(
    file: PackageFile,
    *,
    packages: Packages,
    begin: Callable[[], PackageUpload],
    finish: Callable[[str], PackageView],
    timeout_s: float,
    progress: Progress | None = None,
) -> PackageView:
    """Store ``file`` and return its view; a package that the cluster has is not sent.

    ``begin`` and ``finish`` are the requests to AppMaster. While Redis does not answer, each step waits for
    it up to ``timeout_s``.

    Raises:
        Refused: it is too large, or there is no room. SpecError: the file changes while it is sent.
        Unreachable: Redis does not answer.
    """
    for _ in range(TRIES_MAX):
        begun = begin()
        if begun.stored:
            return begun.package
        if _send(file, begun, packages, timeout_s, progress):
            return finish(begun.package.package)
    raise Conflict(
        f'cannot store package "{file.name}": the cluster loses what is sent',
        details=[f"tried {TRIES_MAX} times"],
        hint="try again; is Redis short of memory?",
    )


def _send(
    file: PackageFile,
    begun: PackageUpload,
    packages: Packages,
    timeout_s: float,
    progress: Progress | None,
) -> bool:
    """Send the chunks that are missing; return whether the upload then has all of them."""
    upload = begun.upload
    resumes = retry_while_away(partial(packages.count, upload), timeout_s) > 0
    sent = total = 0
    for first, chunks in _groups(file, begun.chunk_bytes):
        present = [False] * len(chunks)
        if resumes:
            present = retry_while_away(partial(packages.has, upload, first, chunks), timeout_s)
        for number, chunk in enumerate(chunks, first):
            if not present[number - first]:
                retry_while_away(partial(packages.send, upload, number, chunk), timeout_s)
            sent += len(chunk)
            if progress is not None:
                progress(file, sent)
        total += len(chunks)
    return retry_while_away(partial(packages.count, upload), timeout_s) == total


def _groups(file: PackageFile, chunk_bytes: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the chunks of ``file``, ``CHECKED_MAX`` at once, with the number of the first.

    Raises:
        SpecError: the file is not as it was when its digest was computed.
    """
    digest, number = hashlib.sha256(), 0
    try:
        with open(file.path, "rb") as reader:
            while block := reader.read(chunk_bytes * CHECKED_MAX):
                digest.update(block)
                chunks = [block[at : at + chunk_bytes] for at in range(0, len(block), chunk_bytes)]
                yield number, chunks
                number += len(chunks)
    except OSError as error:
        raise SpecError(f'cannot read package "{file.path}": {error.strerror}') from error
    if digest.hexdigest() != file.sha256:
        raise SpecError(
            f'package "{file.path}" changes while it is sent', hint="try again when it is complete"
        )
