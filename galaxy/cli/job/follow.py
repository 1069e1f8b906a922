"""Follow a job: print changes of its pods, what it is waiting for, and the outcome."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from galaxy.cli.output import one_line, paint, paint_state, print_err, print_out, truncate, wants_colour
from galaxy.cli.tables import event_lines, limit_lines, pod_reason_text, restarts_text, trouble_lines
from galaxy.errors import DONE, FAILED, NOT_ALL_RUNNING, GalaxyError
from galaxy.model.api.views import JobView, PodView
from galaxy.units import counted, format_duration

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

LOG_LINES: Final = 10
EVENTS: Final = 5
ENDED_WELL: Final = ("finished", "stopped", "removed")
"""States of pods that run nothing, and are as desired."""
WAITING_NAMES_MAX: Final = 3
"""Limit on the pods that the line of ``waiting_for`` names."""


class Progress:
    """Prints one line for each change of a pod, and on a terminal a last line: what the job waits for.

    With ``known`` the pods existed before, so their states in the first view are not printed.
    """

    def __init__(self, started_s: float, *, known: bool = False) -> None:
        self._started_s = started_s
        self._known = known
        self._seen: dict[str, tuple[str, ...]] = {}
        self._colour = wants_colour(sys.stderr)
        self._live = sys.stderr.isatty()
        self._frame = 0

    def __call__(self, view: JobView) -> None:
        """Print what changed in ``view``."""
        self._clear_line()
        for line in self.changes(view):
            since = f"+{format_duration(time.monotonic() - self._started_s)}"
            print_err(f"{paint(since, 'dim', self._colour)} {line}", raw=True)
        if self._live and not view.settled:
            self._frame += 1
            width = shutil.get_terminal_size().columns
            mark = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[self._frame % 10]
            sys.stderr.write(truncate(one_line(f"{mark} {waiting_for(view)}"), width))
            sys.stderr.flush()

    def changes(self, view: JobView) -> Iterator[str]:
        """Yield a line for each pod that differs from its last view."""
        for pod in view.pods:
            reason = one_line(pod_reason_text(pod))
            now = (pod.state, str(pod.healthy), str(pod.revision), pod.agent, restarts_text(pod), reason)
            if self._seen.get(pod.pod) != now:
                self._seen[pod.pod] = now
                if not self._known:
                    yield self._pod_line(pod, view, reason)
        self._known = False
        for name in set(self._seen) - {pod.pod for pod in view.pods}:
            del self._seen[name]
            yield f"{one_line(name)} gone"

    def end(self) -> None:
        """Remove the line that says what the job is waiting for."""
        self._clear_line()

    def _pod_line(self, pod: PodView, view: JobView, reason: str) -> str:
        parts = [one_line(pod.pod), paint_state(one_line(pod.state), self._colour)]
        if pod.state == "running":
            parts.append("healthy" if pod.healthy else "not healthy yet")
        if view.summary.revision > 1:
            parts.append(f"revision {pod.revision}")
        if pod.agent and pod.state != "pending":  # Its last container was there.
            parts.append(f"on {one_line(pod.agent)}")
        if count := pod.revision_restarts:
            parts.append(f"restarted {'once' if count == 1 else f'{count} times'}")
        return " ".join(parts) + (f": {reason}" if reason else "")

    def _clear_line(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")


def waiting_for(view: JobView) -> str:
    """Return one line about the pods that are not in their desired state yet."""
    summary = view.summary
    if summary.state == "removing":
        return f"waiting for {counted(len(view.pods), 'pod')} to be gone"
    late = [
        pod
        for pod in view.pods
        if pod.state != "finished" and (not pod.healthy or pod.revision != summary.revision)
    ]
    if summary.state in ("stopping", "stopped"):
        late = [pod for pod in view.pods if pod.state not in ("stopped", "finished", "failed")]
    if not late:
        return "waiting for the cluster to confirm that the job is settled"
    names = ", ".join(f"{pod.pod} {pod.state}" for pod in late[:WAITING_NAMES_MAX])
    hidden = len(late) - WAITING_NAMES_MAX
    more = f" and {hidden} more" if hidden > 0 else ""
    return f"waiting for {len(late)} of {len(view.pods)} pods: {names}{more}"


def is_stuck(view: JobView) -> bool:
    """Return whether the job needs a command or other conditions: its rollout stalls, or pods fail."""
    return view.summary.state in ("stalled", "degraded")


def follow(
    galaxy: Galaxy,
    job: str,
    *,
    timeout_s: float | None,
    until: Callable[[JobView], bool],
    known: bool = False,
) -> JobView | None:
    """Print the changes of ``job`` until ``until`` is true or ``timeout_s`` is over; return its last view.

    Returns None after Ctrl-C, which does not affect the job. ``known`` is as in ``Progress``.
    """
    progress = Progress(time.monotonic(), known=known)
    try:
        return galaxy.wait(job, timeout_s=timeout_s, progress=progress, until=until)
    except KeyboardInterrupt:
        progress.end()
        print_err(f"stopped following; {job} keeps running")
        print_err(f"  try: galaxy job show {job}")
        return None
    finally:
        progress.end()


def print_outcome(galaxy: Galaxy, view: JobView | None) -> int:
    """Print what is known of a job that is not followed any more, with a diagnosis unless it is as desired.

    Returns the exit code: DONE when all pods run, have finished or are stopped as asked, FAILED when pods
    of a batch job failed for good, and NOT_ALL_RUNNING otherwise.
    """
    if view is None:
        return NOT_ALL_RUNNING
    summary = view.summary
    failed = summary.state == "failed" or (summary.type == "batch" and view.settled and summary.failed > 0)
    if view.settled and not failed and summary.state != "removed":
        print_out(settled_line(view))
        for line in limit_lines(view):
            print_err(f"galaxy: warning: {line}")
        for endpoint in view.endpoints:
            print_out(f"  {endpoint.service}  {endpoint.address}:{endpoint.port}  {endpoint.state}")
        return DONE
    print_err(f"{summary.job} is {summary.state}: {pods_text(view)}")
    for line in diagnosis_lines(galaxy, view):
        print_err(f"  {line}")
    print_err(f"  try: galaxy job show {summary.name}")
    return FAILED if failed else NOT_ALL_RUNNING


def settled_line(view: JobView) -> str:
    """Return one line about the state of a settled job."""
    summary = view.summary
    if summary.state == "finished":
        return f"{summary.job} finished: {summary.finished} of {summary.replica} pods"
    if summary.state == "stopped":
        return f"{summary.job} stopped; it keeps {counted(len(view.pods), 'container')}"
    if summary.state == "removed":
        return f"{summary.job} removed"
    if summary.type == "batch":
        return f"{summary.job} runs, and has not ended yet: {pods_text(view)}"
    return f"{summary.job} revision {summary.revision}: {pods_text(view)}"


def pods_text(view: JobView) -> str:
    """Return how many pods of a job are as desired; a batch job's are meant to end."""
    summary = view.summary
    if summary.type != "batch":
        return f"{summary.healthy} of {summary.replica} pods healthy"
    text = f"{summary.finished} of {summary.replica} pods finished"
    for count, what in (
        (summary.failed, f"failed, exit code {view.exit_code}" if view.exit_code else "failed"),
        (summary.running, "running"),
        (summary.pending + summary.deploying, "not running yet"),
    ):
        text += f", {count} {what}" if count else ""
    return text


def diagnosis_lines(galaxy: Galaxy, view: JobView) -> list[str]:
    """Return why a job is not as desired: reasons, last events, and the log of its most troubled pod."""
    lines = trouble_lines(view)
    events = event_lines(view, time.time(), EVENTS)
    if events:
        lines += ["last events:", *(f"  {line}" for line in events)]
    pod = most_troubled(view)
    if pod is not None:
        lines += last_log_lines(galaxy, pod)
    return [one_line(line) for line in lines]


def most_troubled(view: JobView) -> PodView | None:
    """Return the pod whose log explains best why a job is not as desired: one that failed, or is down.

    Pods that have ended as they should explain nothing.
    """
    pods = [pod for pod in view.pods if pod.agent and pod.state not in ENDED_WELL]
    worst_first = (
        [pod for pod in pods if pod.state == "failed"],
        [pod for pod in pods if pod.state == "backoff"],
        [pod for pod in pods if not pod.healthy and pod.reason],
        [pod for pod in pods if not pod.healthy],
        [pod for pod in pods if pod.revision_restarts],
    )
    return next((group[0] for group in worst_first if group), None)


def last_log_lines(galaxy: Galaxy, pod: PodView) -> list[str]:
    """Return the last lines that the latest run of a pod's programs wrote, or why they cannot be read."""
    try:
        with galaxy.logs(pod.pod, tail=LOG_LINES, latest=True) as logs:
            chunks = list(logs)
    except GalaxyError as error:
        return [f"no log of {pod.pod}: {error.message}"]
    text = "".join(chunk.text for chunk in chunks).splitlines()[-LOG_LINES:]
    revisions = {chunk.run.revision for chunk in chunks if chunk.run is not None}
    of = f", revision {max(revisions)}" if revisions else ""
    return [f"last lines of {pod.pod}{of}:", *(f"  {line}" for line in text)] if text else []
