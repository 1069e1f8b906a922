"""Waiting for a job: hearing of its events, and looking now and then whatever was heard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from galaxy.client.transport import RequestTransport, seconds_left
from galaxy.errors import Unreachable
from galaxy.model.api.views import JobView

LOOK_S: Final = 1.0
"""How often it looks even if it hears of nothing."""
AT_REST: Final = ("finished", "failed", "removed", "degraded")
"""States in which nothing more happens by itself."""


def at_rest(view: JobView) -> bool:
    """Whether nothing more happens to a job by itself: it is as wanted, over, or degraded."""
    return view.settled or view.summary.state in AT_REST


def wait(
    transport: RequestTransport,
    look: Callable[[str], JobView],
    job: str,
    *,
    timeout_s: float | None,
    progress: Callable[[JobView], None] | None,
    until: Callable[[JobView], bool],
) -> JobView:
    """``look`` at a job until ``until`` says so or ``timeout_s`` (None: never) is over; return its last view.

    ``progress`` is called with every view but the first. After that one, answers that are
    missing are waited for.
    """
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    view = look(job)
    mark = transport.newest_event(view.summary.job)
    for left_s in seconds_left(end_s):
        with contextlib.suppress(Unreachable):
            view = look(view.summary.job)
        if progress is not None:
            progress(view)
        if until(view):
            break
        mark = _await_event(transport, view.summary.job, mark, min(left_s, LOOK_S))
    return view


def _await_event(transport: RequestTransport, job: str, mark: str, timeout_s: float) -> str:
    try:
        return transport.await_event(job, mark, timeout_s)
    except Unreachable:
        time.sleep(min(timeout_s, LOOK_S))  # There is no event to wait for while Redis is away.
        return mark
