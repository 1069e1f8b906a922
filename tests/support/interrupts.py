"""Ctrl-C for processes that a test starts."""

from __future__ import annotations

import signal


def accept_interrupts() -> None:
    """Restore SIGINT's default: background processes of a shell without job control inherit it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
