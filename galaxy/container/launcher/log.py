"""The launcher's log: its standard error, which the agent that starts it redirects into a file."""

from __future__ import annotations

import contextlib
import os


def log(line: str) -> None:
    """Write one line; a full disk is no reason to fail."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
