"""The directory of a container: made by a launcher, and told apart from every other one by what is in it.

A name proves nothing: a person may have made a directory ``backup_2024`` here, or a copy of a container's.
A directory is a container's only if it holds a record of that container.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.protocol import ContainerRef, Ended, InitRecord
from galaxy.container.record_file import load_record, save_record
from galaxy.errors import HostError
from galaxy.ids import parse_container_key

OWN_RECORD: Final = "container.json"
"""A ``ContainerRef``, written before anything else of the container exists."""
INIT_RECORD: Final = "init.json"
"""An ``InitRecord``, written before PID 1 may run anything."""
END_RECORD: Final = "ended.json"
"""An ``Ended``."""
PLAN_NAME: Final = "plan.json"
"""The container's ``LaunchPlan``."""
SOCKET_NAME: Final = "sock"
"""AppWorker's socket."""

_RECORDS: Final[tuple[tuple[str, type[ContainerRef | LaunchPlan]], ...]] = (
    (OWN_RECORD, ContainerRef),
    (INIT_RECORD, InitRecord),
    (END_RECORD, Ended),
    (PLAN_NAME, LaunchPlan),
)
"""Releases before 0.3.0 wrote no ``OWN_RECORD``."""


def make_directory(path: str, container: ContainerRef) -> None:
    """Create a container's directory, or continue with what an interrupted creation has left.

    Raises:
        HostError: there is something else at ``path``.
        OSError: the disk is full or failing.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if owner_of(path) != container.key:
            raise HostError(
                f"{path} exists already, and Galaxy did not make it", hint="move it away"
            ) from None
        return
    try:
        save_record(f"{path}/{OWN_RECORD}", container)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(path)
        raise


def owner_of(path: str) -> str | None:
    """Return the key of the container whose directory this is; None if Galaxy did not make it for one."""
    key = os.path.basename(path)
    if parse_container_key(key) is None or os.path.islink(path):
        return None
    for name, kind in _RECORDS:
        record = load_record(f"{path}/{name}", kind)
        if record is not None:
            return key if record.key == key else None
    return None
