"""Options that many commands share: the cluster, the output format, and names that the shell completes."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from galaxy.cli.output import FORMATS, Output, print_err
from galaxy.client.contexts import given_url
from galaxy.container.kernel.uid_ranges import UID_MAX, UID_MIN
from galaxy.errors import GalaxyError
from galaxy.units import format_duration, parse_bytes, parse_duration

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

F = TypeVar("F", bound=Callable[..., Any])

COMPLETION_S: Final = 1.0
"""Time limit for completions of names, which need the cluster."""


@dataclass(frozen=True)
class Target:
    """The cluster that a command line names; empty values leave the choice to the environment."""

    url: str = ""
    dir: str = ""
    context: str = ""
    timeout_s: float = 5.0

    def open(self) -> Galaxy:
        """Connect to the cluster; raises what ``Galaxy`` raises."""
        from galaxy.client.sdk import Galaxy

        galaxy = Galaxy(self.url, dir=self.dir, context=self.context, timeout_s=self.timeout_s)
        if galaxy.cluster.ignored:
            named_by = galaxy.cluster.named_by
            print_err(f"galaxy: warning: {galaxy.cluster.ignored} is not used: {named_by} names the cluster")
        return galaxy

    def open_to_change(self, *, quiet: bool = False) -> Galaxy:
        """Connect to the cluster; say on stderr which one it is, if that is not obvious.

        Commands that change something use this, unless all that they print is data for programs.
        """
        galaxy = self.open()
        if not (quiet or galaxy.cluster.is_obvious):
            print_err(str(galaxy.cluster))
        return galaxy


class Duration(click.ParamType[float]):
    """A duration in seconds, written like ``30s``, ``2m`` or plain seconds, within bounds."""

    name = "TIME"

    def __init__(self, min_s: float = 0.0, max_s: float = math.inf) -> None:
        self._min_s = min_s
        self._max_s = max_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._min_s <= seconds <= self._max_s:
            bounds = f"from {format_duration(self._min_s)} to {format_duration(self._max_s)}"
            self.fail(f"{value!r} is not {bounds}", param, ctx)
        return seconds


class Size(click.ParamType[int]):
    """A number of bytes, written like ``256M`` or ``1G``, at least 1."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < 1:
            self.fail(f"{value!r} is not at least 1 byte", param, ctx)
        return size


class NumberRange(click.ParamType[tuple[int, int]]):
    """Two numbers written like ``LOW-HIGH``, both included, within bounds."""

    name = "LOW-HIGH"

    def __init__(self, unit: str, *, low: int, high: int, example: str) -> None:
        self._unit = unit
        self._low = low
        self._high = high
        self._example = example

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value)
        first, last = (int(match[1]), int(match[2])) if match else (0, -1)
        if not self._low <= first <= last <= self._high:
            bounds = f"from {self._low} to {self._high}"
            self.fail(
                f"{value!r} is not a range of {self._unit} {bounds}; write it like {self._example}",
                param,
                ctx,
            )
        return first, last


UID_RANGE: Final = NumberRange("uids", low=UID_MIN, high=UID_MAX, example="1000000-1065535")
PORT_RANGE: Final = NumberRange("ports", low=1024, high=65535, example="20000-29999")


def redis_options(function: F) -> F:
    """Add --redis and --redis-file; the command gets the URL of either as ``redis``, or an empty text."""

    @click.option(
        "--redis",
        metavar="URL",
        default="",
        help="Use the cluster with this Redis.",
    )
    @click.option(
        "--redis-file", metavar="FILE", default="", help="Use the cluster whose Redis URL FILE contains."
    )
    @functools.wraps(function)
    def command(*args: Any, redis: str, redis_file: str, **kwargs: Any) -> Any:
        return function(*args, redis=given_url(redis, redis_file), **kwargs)

    return command  # type: ignore[return-value]


def cluster_options(function: F) -> F:
    """Add the options that name the cluster, and --answer-within; the command gets them as ``target``."""

    @redis_options
    @click.option("--dir", "directory", metavar="DIR", default="", help="Use the cluster of this folder.")
    @click.option("--context", metavar="NAME", default="", help="Use the cluster of this context.")
    @click.option(
        "--answer-within", type=Duration(), default="5s", metavar="TIME", show_default=True,
        help="Time limit for each answer.",
    )  # fmt: skip
    @functools.wraps(function)
    def command(
        *args: Any, redis: str, directory: str, context: str, answer_within: float, **kwargs: Any
    ) -> Any:
        target = Target(redis, directory, context, answer_within)
        return function(*args, target=target, **kwargs)

    return command  # type: ignore[return-value]


owner_option = click.option("--user", default="", help="The owner, for operators [yourself].")


def owners_options(what: str) -> Callable[[F], F]:
    """Add --user and --all to a command that lists ``what`` of one user or of all."""

    def add(function: F) -> F:
        every = click.option("--all", "every", is_flag=True, help=f"{what} of all users, for operators.")
        return owner_option(every(function))

    return add


def output_options(function: F) -> F:
    """Add -o and --no-headers; the command gets them as ``output``."""

    @click.option(
        "-o", "--output", "form", type=click.Choice(FORMATS), default="table", help="Output format."
    )
    @click.option("--no-headers", is_flag=True, help="Omit the line of headers.")
    @functools.wraps(function)
    def command(*args: Any, form: str, no_headers: bool, **kwargs: Any) -> Any:
        return function(*args, output=Output(form, headers=not no_headers), **kwargs)

    return command  # type: ignore[return-value]


Lister = Callable[["Galaxy"], Sequence[tuple[str, str]]]
"""Lists (name, help) pairs of one cluster for the shell."""


def complete(lister: Lister) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completer for an argument. When the cluster does not answer, it completes nothing."""

    def items(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = {name: ctx.params.get(name) or "" for name in ("redis", "directory", "context")}
        target = Target(named["redis"], named["directory"], named["context"], COMPLETION_S)
        try:
            with target.open() as galaxy:
                pairs = lister(galaxy)
        except GalaxyError:
            return []
        return [CompletionItem(name, help=text) for name, text in pairs if name.startswith(incomplete)]

    return items


def job_names(galaxy: Galaxy) -> list[tuple[str, str]]:
    return [(job.name, f"{job.type}, {job.state}") for job in galaxy.jobs()]


def all_job_names(galaxy: Galaxy) -> list[tuple[str, str]]:
    return sorted({(job.name, job.type) for job in galaxy.jobs(all=True)})


def pod_names(galaxy: Galaxy) -> list[tuple[str, str]]:
    """List jobs, and up to 20 pods of each."""
    jobs = galaxy.jobs()
    names = [(job.name, job.type) for job in jobs]
    return names + [(f"{job.job}.{index}", job.name) for job in jobs for index in range(min(job.replica, 20))]


def agent_names(galaxy: Galaxy) -> list[tuple[str, str]]:
    return [(agent.agent, agent.state) for agent in galaxy.agents()]


def service_names(galaxy: Galaxy) -> list[tuple[str, str]]:
    """List the services of up to 50 jobs; each job costs one request."""
    specs = [(job.name, galaxy.job(job.job).spec) for job in galaxy.jobs()[:50]]
    return [
        (service.name, job) for job, spec in specs for task in spec.pod.tasks for service in task.services
    ]


job_argument = click.argument("job", shell_complete=complete(job_names))
any_job_argument = click.argument("job", shell_complete=complete(all_job_names))
file_argument = click.argument("file", type=click.Path(allow_dash=True))
