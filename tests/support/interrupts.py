"""Ctrl-C for what a test starts."""

from __future__ import annotations

import signal


def hear_interrupts() -> None:
    """Heed SIGINT: what runs in the background of a shell without jobs ignores it, as do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
