"""Wait for a job: on each of its events, and at least once a second, read its view again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from galaxy.client.transport import RequestTransport, seconds_left
from galaxy.errors import Unreachable
from galaxy.model.api.views import JobView

POLL_S: Final = 1.0
"""Longest time between two reads, because an event can be missed."""


def at_rest(view: JobView) -> bool:
    """Return whether only a command changes the job: it is settled, has ended, or is degraded."""
    return view.settled or view.summary.is_over or view.summary.state == "degraded"


def wait(
    transport: RequestTransport,
    read_view: Callable[[str], JobView],
    job: str,
    *,
    timeout_s: float | None,
    progress: Callable[[JobView], None] | None,
    until: Callable[[JobView], bool],
) -> JobView:
    """Read the view of a job until ``until`` is true or ``timeout_s`` is over; return the last view.

    Without ``timeout_s`` it waits forever. ``progress`` is called with every view but the first.
    After the first view, it keeps waiting while the cluster does not answer.

    Raises:
        GalaxyError: as ``read_view``; Unreachable only for the first view.
    """
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    view = read_view(job)
    mark = transport.newest_event(view.summary.job)
    for left_s in seconds_left(end_s):
        with contextlib.suppress(Unreachable):
            view = read_view(view.summary.job)
        if progress is not None:
            progress(view)
        if until(view):
            break
        mark = _await_event(transport, view.summary.job, mark, min(left_s, POLL_S))
    return view


def _await_event(transport: RequestTransport, job: str, mark: str, timeout_s: float) -> str:
    try:
        return transport.await_event(job, mark, timeout_s)
    except Unreachable:
        time.sleep(min(timeout_s, POLL_S))  # While Redis is away, there is no event to wait for.
        return mark
