"""``galaxy logs``: what the programs of a job or a pod wrote."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from msgspec.structs import replace

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, complete, pod_names
from galaxy.cli.output import format_time, paint, print_err, wants_colour
from galaxy.cli.times import parse_since
from galaxy.errors import DONE, FAILED, UsageError
from galaxy.model.api.views import JobView, LogChunk

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
LINE_MAX = 64 * 1024
"""A longer line is printed in pieces of this many characters."""
PODS_SHOWN = 5
"""Pods without output that are named."""


@click.command(
    cls=Command,
    examples="""\
  galaxy logs web                  show the last 200 lines of every pod
  galaxy logs -f web               and continue with what follows
  galaxy logs web --pod 2          of one pod only; also: galaxy logs web-3f9a2c.2
  galaxy logs --previous web       of the run before the current one
  galaxy logs --since 10m --timestamps web
""",
)
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@click.option("-f", "--follow", is_flag=True, help="Continue with new output and pods, until the job ends.")
@click.option(
    "-n", "--tail", metavar="N|all", help="Last lines of each pod.  [default: 200, with --since all]"
)
@click.option("--since", metavar="TIME", help="Only what is newer: 10m, 09:15, 2026-11-30T09:15.")
@click.option("--timestamps", is_flag=True, help="Start each line with its time of arrival, in UTC.")
@click.option("--previous", is_flag=True, help="Show the run before the current one.")
@click.option("--pod", default="", metavar="POD", help="Only this pod: its index or its id.")
@click.option("--task", default="", metavar="TASK", help="Only this program.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this stream.")
@click.option("--no-prefix", is_flag=True, help="Do not start lines with their pod, and do not mark runs.")
@cluster_options
def logs(
    target: Target, name: str, follow: bool, tail: str | None, since: str | None, timestamps: bool,
    previous: bool, pod: str, task: str, stream: str | None, no_prefix: bool,
) -> int:  # fmt: skip
    """Show what the programs of a job or a pod wrote, in the order of time.

    Both streams are merged, and a line like "--- web-3f9a2c.0 main: revision 2, restart 1 ---" marks where
    the output of another run begins.
    """
    if follow and previous:
        raise UsageError("--follow cannot be combined with --previous: that run is over")
    source = f"{name}.{pod}" if pod.isdecimal() else pod or name
    failed = False
    lines = _count(tail or ("all" if since else "200"))
    since_s = parse_since(since) if since else 0.0
    with (
        target.open() as galaxy,
        galaxy.logs(
            source,
            task=task,
            stream=stream or "",
            tail=lines,
            follow=follow,
            previous=previous,
            since_s=since_s,
        ) as chunks,
    ):
        printer = Printer(marks=not no_prefix, timestamps=timestamps, colour=wants_colour(sys.stdout))
        if follow and not chunks.pods:
            print_err(f"waiting for the first pod of {name}")
        try:
            for chunk in chunks:
                printer.prefix = len(chunks.pods) > 1 and not no_prefix
                if chunk.error:
                    failed = True
                    print_err(f"galaxy: {chunk.error}")
                if text := printer(replace(chunk, text=chunk.exact) if chunk.raw else chunk):
                    sys.stdout.write(text)
                    if follow:
                        sys.stdout.flush()
        except KeyboardInterrupt:
            if not follow:
                raise
        sys.stdout.write(printer.rest())
        if not printer.has_printed and not failed and not follow:
            filtered = bool(since or task or stream or previous)
            job = galaxy.job(chunks.pods[0].rpartition(".")[0])
            for line in why_nothing(job, chunks.pods, filtered=filtered):
                print_err(line)
    return FAILED if failed else DONE


def why_nothing(job: JobView, names: Sequence[str], *, filtered: bool) -> list[str]:
    """Return what to say when pods have no output: their states and reasons, ``PODS_SHOWN`` at most.

    ``filtered``: only a part of the output was asked for.
    """
    pods = [pod for pod in job.pods if pod.pod in names]
    what = "no such output" if filtered else "no output"
    lines = []
    for pod in pods[:PODS_SHOWN]:
        reasons = [pod.reason, *(task.reason for task in pod.tasks)]
        reason = next((f": {each.message}" for each in reasons if each is not None), "")
        lines.append(f"{what} of {pod.pod}, which is {pod.state}{reason}")
    if len(pods) > PODS_SHOWN:
        lines.append(f"nor of {len(pods) - PODS_SHOWN} more pods")
    return lines


def _count(tail: str) -> int:
    if tail == "all":
        return -1
    if not tail.isdecimal():
        raise UsageError(f'"{tail}" is not a number of lines', hint="--tail 100, or --tail all")
    return int(tail)


class Printer:
    """Turns chunks into text. With ``prefix`` or ``timestamps`` into complete lines that start with those.

    ``prefix`` may change meanwhile. With ``marks`` a line of its own says where another run of a program
    begins, unless nothing of an earlier run was printed.
    """

    def __init__(
        self, *, prefix: bool = False, timestamps: bool = False, marks: bool = False, colour: bool
    ) -> None:
        self.prefix = prefix
        self._timestamps = timestamps
        self._marks = marks
        self._colour = colour
        self._incomplete: dict[tuple[str, str, str], LogChunk] = {}
        self._colours: dict[str, str] = {}
        self._printed: set[tuple[str, str]] = set()
        """Pods and programs of which something was printed."""
        self._mid_line = False

    def __call__(self, chunk: LogChunk) -> str:
        """Return what to print now."""
        program = (chunk.pod, chunk.task)
        if chunk.run is not None:
            return self._mark(chunk) if self._marks and program in self._printed else ""
        if not chunk.text:
            return ""
        self._printed.add(program)
        if not self.prefix and not self._timestamps and not self._incomplete:
            self._mid_line = not chunk.text.endswith("\n")
            return chunk.text
        return self._lines(chunk)

    @property
    def has_printed(self) -> bool:
        """Whether there was any output."""
        return bool(self._printed)

    def rest(self) -> str:
        """Return the incomplete last lines."""
        lines = "".join(f"{self._head(chunk)}{chunk.text}\n" for chunk in self._incomplete.values())
        self._incomplete.clear()
        return lines

    def _lines(self, chunk: LogChunk) -> str:
        key = (chunk.pod, chunk.task, chunk.stream)
        before = self._incomplete.pop(key, None)
        *lines, rest = ((before.text if before else "") + chunk.text).split("\n")
        if len(rest) > LINE_MAX:
            lines.append(rest)
        elif rest:
            began = before if before and not lines else chunk
            self._incomplete[key] = replace(began, text=rest)
        head = self._head(chunk)
        first = self._head(before) if before else head
        return self._finish_line() + "".join(
            f"{head if number else first}{line}\n" for number, line in enumerate(lines)
        )

    def _mark(self, chunk: LogChunk) -> str:
        assert chunk.run is not None, "only a chunk that begins a run is a mark"
        program = f"{chunk.pod} {chunk.task}"
        restart = f", restart {chunk.run.restarts}" if chunk.run.restarts else ""
        at = f", {format_time(chunk.at_s)}" if chunk.at_s else ""
        text = f"--- {program}: revision {chunk.run.revision}{restart}{at} ---"
        ended = [key for key in self._incomplete if key[:2] == (chunk.pod, chunk.task)]
        rest = "".join(self._lines(replace(self._incomplete[key], text="\n")) for key in ended)
        return rest + self._finish_line() + paint(text, "dim", self._colour) + "\n"

    def _finish_line(self) -> str:
        """Return what ends the line that was printed last, if it is incomplete."""
        ended, self._mid_line = self._mid_line, False
        return "\n" if ended else ""

    def _head(self, chunk: LogChunk) -> str:
        stamp = f"{_stamp(chunk.at_s)} " if self._timestamps else ""
        if not self.prefix:
            return stamp
        colour = self._colours.setdefault(chunk.pod, COLOURS[len(self._colours) % len(COLOURS)])
        return paint(f"{chunk.pod} | ", colour, self._colour) + stamp


def _stamp(at_s: float) -> str:
    """Return a time in UTC with milliseconds, or a dash of that width if it is not known."""
    if not at_s:
        return "-".ljust(24)
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
