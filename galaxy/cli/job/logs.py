"""``galaxy logs``: what the programs of a job or a pod wrote."""

from __future__ import annotations

import sys

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, complete, pod_names
from galaxy.cli.output import paint, print_err, wants_colour
from galaxy.errors import DONE, FAILED, UsageError
from galaxy.model.api.views import LogChunk

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
LINE_MAX = 64 * 1024
"""A longer line is printed in pieces of this many characters."""


@click.command(
    cls=Command,
    examples="""\
  galaxy logs web                  show the last 200 lines of every pod
  galaxy logs -f web               and continue with what follows
  galaxy logs web --pod 2          of one pod only; also: galaxy logs web-3f9a2c.2
  galaxy logs --previous web       of the run before the current one
""",
)
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@click.option("-f", "--follow", is_flag=True, help="Continue with new output, until Ctrl-C.")
@click.option(
    "-n",
    "--tail",
    default="200",
    metavar="N|all",
    show_default=True,
    help="Last lines of each stream.",
)
@click.option("--previous", is_flag=True, help="Show the run before the current one.")
@click.option("--pod", default="", metavar="POD", help="Only this pod: its index or its id.")
@click.option("--task", default="", metavar="TASK", help="Only this program.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this stream.")
@click.option("--no-prefix", is_flag=True, help="Do not start lines with their pod.")
@cluster_options
def logs(
    target: Target, name: str, follow: bool, tail: str, previous: bool, pod: str, task: str,
    stream: str | None, no_prefix: bool,
) -> int:  # fmt: skip
    """Show what the programs of a job or a pod wrote."""
    if follow and previous:
        raise UsageError("--follow cannot be combined with --previous: that run is over")
    source = f"{name}.{pod}" if pod.isdecimal() else pod or name
    failed = False
    with (
        target.open() as galaxy,
        galaxy.logs(
            source, task=task, stream=stream or "", tail=_count(tail), follow=follow, previous=previous
        ) as chunks,
    ):
        printer = Printer(prefix=len(chunks.pods) > 1 and not no_prefix, colour=wants_colour(sys.stdout))
        try:
            for chunk in chunks:
                if chunk.error:
                    failed = True
                    print_err(f"galaxy: {chunk.error}")
                if chunk.text:
                    sys.stdout.write(printer(chunk))
                    if follow:
                        sys.stdout.flush()
        except KeyboardInterrupt:
            if not follow:
                raise
        sys.stdout.write(printer.rest())
    return FAILED if failed else DONE


def _count(tail: str) -> int:
    if tail == "all":
        return -1
    if not tail.isdecimal():
        raise UsageError(f'"{tail}" is not a number of lines', hint="--tail 100, or --tail all")
    return int(tail)


class Printer:
    """Turns chunks into text; with ``prefix`` into complete lines that start with their pod."""

    def __init__(self, *, prefix: bool, colour: bool) -> None:
        self._prefix = prefix
        self._colour = colour
        self._incomplete: dict[tuple[str, str, str], str] = {}
        self._colours: dict[str, str] = {}

    def __call__(self, chunk: LogChunk) -> str:
        """Return what to print now."""
        if not self._prefix:
            return chunk.text
        key = (chunk.pod, chunk.task, chunk.stream)
        text = self._incomplete.pop(key, "") + chunk.text
        *lines, rest = text.split("\n")
        if len(rest) > LINE_MAX:
            lines.append(rest)
        elif rest:
            self._incomplete[key] = rest
        head = self._head(chunk.pod)
        return "".join(f"{head}{line}\n" for line in lines)

    def rest(self) -> str:
        """Return the incomplete last lines."""
        lines = "".join(f"{self._head(pod)}{text}\n" for (pod, _, _), text in self._incomplete.items())
        self._incomplete.clear()
        return lines

    def _head(self, pod: str) -> str:
        colour = self._colours.setdefault(pod, COLOURS[len(self._colours) % len(COLOURS)])
        return paint(f"{pod} | ", colour, self._colour)
