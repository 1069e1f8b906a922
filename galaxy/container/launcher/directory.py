"""The directory of a container, and the record by which a launcher recognises it.

The name of a directory proves nothing: a person may have made ``backup_2024`` here, or copied the directory
of a container. A directory belongs to a container only if it holds ``OWN_RECORD`` of that container.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from galaxy.container.launcher.protocol import ContainerRef
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
    record = load_record(f"{path}/{OWN_RECORD}", ContainerRef)
    return key if record is not None and record.key == key else None
