"""``galaxy up`` and ``galaxy down``: start and stop a whole cluster on this host."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from galaxy.cli.confirm import confirm, yes_option
from galaxy.cli.lazy import Action
from galaxy.cli.local.display import Display, print_line
from galaxy.cli.local.first_job import FirstJob
from galaxy.cli.local.layout import Layout, lock_folder
from galaxy.cli.local.local_cluster import (
    TIMEOUT_S,
    TIMEOUT_S_MAX,
    TIMEOUT_S_MIN,
    ClusterUp,
    UpOptions,
    check_server_options,
)
from galaxy.cli.local.shutdown import stop_cluster
from galaxy.cli.local.supervisor_process import SupervisorHandle, signals_as_interrupts, start_supervisor
from galaxy.cli.options import UID_RANGE, Duration
from galaxy.cli.output import print_err
from galaxy.client.cluster_file import ClusterFile, default_dir, read_cluster
from galaxy.client.contexts import (
    REDIS_VARIABLES,
    Context,
    given_url,
    is_up,
    load_contexts,
    remove_context,
    save_context,
    start_command,
    url_from_environment,
    without_password,
)
from galaxy.container.kernel import inherited
from galaxy.errors import GalaxyError, UsageError

FirstFiles = tuple[Path, Path | None]
"""The job file to run, and the batch job whose crontab line to print."""

LESSER_MODES = {
    "userns": "lesser mode: without root there are namespaces but no enforced limits",
    "process": "lesser mode: programs are plain processes, nothing is enforced or isolated",
}


@click.command(cls=Action)
@click.option("--dir", "directory", metavar="DIR", envvar="GALAXY_DIR", help="Keep everything in DIR.")
@click.option(
    "--detach", "-d", is_flag=True, help="Return when the cluster is up; `galaxy down` stops it."
)  # fmt: skip
@click.option(
    "--redis", metavar="URL", help="Use this Redis or Valkey instead of starting one [GALAXY_REDIS]."
)
@click.option("--redis-file", metavar="FILE", help="The same, with the URL in FILE [GALAXY_REDIS_FILE].")
@click.option(
    "--server",
    type=click.Choice(["redis", "valkey", "embedded"]),
    help="Which server to start [the first of these that is installed].",
)
@click.option("--listen", metavar="ADDRESS", help="Let agents of other hosts join at this address.")
@click.option("--agents", type=click.IntRange(1, 8), default=1, help="Agents to run, each like a host.")
@click.option("--web/--no-web", default=True, help="Start Flower.")
@click.option(
    "--web-port", type=click.IntRange(1, 65535), metavar="PORT", help="Flower's port [5555, or next]."
)
@click.option("--redis-port", type=click.IntRange(1, 65535), metavar="PORT", help="The server's port.")
@click.option("--uids", type=UID_RANGE, help="User ids for containers, one each [1000000-1262143].")
@click.option("--run-user", metavar="USER", help="Run all programs as this account instead.")
@click.option(
    "--timeout", "timeout_s", type=Duration(TIMEOUT_S_MIN, TIMEOUT_S_MAX), default=f"{TIMEOUT_S:.0f}s",
    metavar="TIME", show_default=True, help="Time limit for the server, and then for the parts, to be ready.",
)  # fmt: skip
@click.option("--run", "job", metavar="FILE", help="Run this job file once the cluster is up.")
@click.option("--cron", metavar="FILE", help="With --run: also print the crontab line of this batch job.")
@click.pass_context
def up(
    ctx: click.Context, /, directory: str | None, redis: str | None, redis_file: str | None, detach: bool,
    job: str | None, cron: str | None, **chosen: Any,
) -> None:  # fmt: skip
    """Start a whole cluster on this host.

    It consists of a server, ResMan, AppMaster, an Agent and Flower. All their state, sockets and
    logs are in one folder. In the foreground, Ctrl-C stops the cluster.
    """
    inherited.reset()  # Before anything is created, or forked, with what the caller has set.
    given = {name: value for name, value in chosen.items() if value is not None}
    url, named_by = given_url(redis, redis_file), ""
    if not url:
        url, named_by = url_from_environment()
    options = UpOptions(dir=str(_folder(directory)), detach=detach, redis=url, redis_from=named_by, **given)
    if options.web_port and not options.web:
        raise UsageError("--web-port and --no-web contradict each other", hint="leave one of them out")
    check_server_options(options)
    console = Console(stderr=False)
    if cron and not job:
        raise UsageError("--cron goes with --run", hint="galaxy job cron FILE prints the line alone")
    first = (Path(job), Path(cron) if cron else None) if job else None
    layout = Layout(Path(options.dir))
    layout.make()
    lock = lock_folder(layout)
    if lock is None:
        _use_running_cluster(layout, first, console)
        _print_unused_options(ctx)
        return
    supervisor = start_supervisor(options, layout, lock)
    with signals_as_interrupts():
        try:
            _follow(supervisor, options, first, console)
        except KeyboardInterrupt:
            _stop(supervisor, console)
            sys.exit(130)
        except BaseException:
            supervisor.stop()
            _drain(supervisor)
            raise
    if not detach:
        supervisor.reap()


@click.command(cls=Action)
@click.option("--dir", "directory", metavar="DIR", envvar="GALAXY_DIR", help="The cluster's folder.")
@click.option("--purge", is_flag=True, help="Remove the folder as well: jobs, logs, history.")
@yes_option
def down(directory: str | None, purge: bool, yes: bool) -> None:
    """Stop the cluster of a folder: every process, container, mount and cgroup of it.

    The jobs stay in the folder: the next `galaxy up` with that folder runs them again.
    """
    layout = Layout(_folder(directory or _current_dir()))
    console = Console(stderr=False)
    if purge and layout.plan.exists() and not yes:
        hint = f"galaxy down --purge --yes --dir {shlex.quote(str(layout.root))}"
        confirm([f"stop the cluster in {layout.root} and remove its jobs, logs and history"], hint=hint)
    with Display(console) as display:
        ran, left = stop_cluster(layout, display.show)
    if left:
        raise GalaxyError(f"cannot stop every part of the cluster in {layout.root}", details=left.lines())
    if purge and layout.plan.exists():
        shutil.rmtree(layout.root)
        with contextlib.suppress(GalaxyError, OSError, RuntimeError):  # A user may have no home folder.
            remove_context(dir=layout.root)
    for line in _down_lines(layout, ran=ran):
        print_line(console, line)


def _down_lines(layout: Layout, *, ran: bool) -> list[str]:
    """Return what ``galaxy down`` did, how to start the cluster again, and which others run."""
    lines = [f"the cluster in {layout.root} is stopped" if ran else f"no cluster runs in {layout.root}"]
    if layout.plan.exists():
        lines.append(f"`{start_command(layout.root)}` starts it{' again' if ran else ''}")
    with contextlib.suppress(GalaxyError, RuntimeError):
        others = [one.name for one in load_contexts().contexts if one.dir != str(layout.root) and is_up(one)]
        if others:
            lines.append(f"these run: {', '.join(others)}; `galaxy context use {others[0]}` chooses one")
    return lines


def _folder(directory: str | None) -> Path:
    """Return the cluster's folder without symbolic links, as the kernel reports it in mounts.

    Raises:
        UsageError: a file has that name.
    """
    path = (Path(directory) if directory else default_dir()).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is not a folder")
    return path


def _current_dir() -> str | None:
    """Return the folder of the current context; None without one.

    Raises:
        UsageError: the current context is a cluster on other hosts.
    """
    current = _current_context()
    if current is not None and not current.dir:
        raise UsageError(
            f'the current context "{current.name}" is a cluster on other hosts, which `down` cannot stop',
            hint="galaxy down --dir DIR stops the cluster of a folder here",
        )
    return current.dir if current else None


def _current_context() -> Context | None:
    with contextlib.suppress(GalaxyError, RuntimeError):
        known = load_contexts()
        return known.get(known.current)
    return None


def _follow(
    supervisor: SupervisorHandle, options: UpOptions, job: FirstFiles | None, console: Console
) -> None:
    """Show the start, run the job, and unless detached wait until the cluster stops."""
    with Display(console) as display:
        up = supervisor.wait_until_up(display.show)
    _save_as_current(options.dir, console)
    for line in _summary(up):
        print_line(console, line)
    if job:
        FirstJob(up.cluster, job[0], console, job[1]).run()
    if options.detach:
        print_line(console, f"`{_down_command(up.cluster)}` stops it")
        return
    print_line(console, "Ctrl-C stops it")
    with Display(console) as display:
        supervisor.wait_until_stopped(display.show)
    raise GalaxyError("the cluster's supervisor ended", hint=f"see {options.dir}/logs/supervisor.log")


def _stop(supervisor: SupervisorHandle, console: Console) -> None:
    """Stop the cluster; a second Ctrl-C does not interrupt this."""
    supervisor.stop()
    with Display(console) as display:
        while True:
            try:
                supervisor.wait_until_stopped(display.show)
                break
            except KeyboardInterrupt:
                continue
    supervisor.reap()


def _drain(supervisor: SupervisorHandle) -> None:
    """Wait until the supervisor process has ended, without showing its messages."""
    with contextlib.suppress(GalaxyError):
        supervisor.wait_until_stopped(lambda _: None)
    supervisor.reap()


def _use_running_cluster(layout: Layout, job: FirstFiles | None, console: Console) -> None:
    """Report the cluster that already runs in this folder, and run the job on it.

    Raises:
        GalaxyError: none runs; another command is starting or stopping one.
    """
    cluster = read_cluster(layout.root)
    supervisor = cluster.supervisor() if cluster else None
    if cluster is None or supervisor is None or not supervisor.is_running():
        raise GalaxyError(
            f"another `galaxy up` or `galaxy down` is running in {layout.root}", hint="wait a moment"
        )
    cluster.require_readable()
    _save_as_current(cluster.dir, console)
    print_line(console, f"a cluster already runs in {cluster.dir} (process {supervisor.pid})")
    if cluster.flower:
        print_line(console, f"Flower       {cluster.flower}")
    if job:
        FirstJob(cluster, job[0], console, job[1]).run()


def _print_unused_options(ctx: click.Context) -> None:
    """Warn about options that have no effect on a cluster that already runs."""
    given = [
        _given_name(ctx, param)
        for param in ctx.command.params
        if param.name not in ("directory", "detach", "job", "cron")
        and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]
    given += [name for name in REDIS_VARIABLES if os.environ.get(name)]
    if given:
        print_err(f"galaxy: warning: it was not changed, and these were not used: {', '.join(given)}")
        print_err("  try: galaxy down, then galaxy up with the new options")


def _given_name(ctx: click.Context, param: click.Parameter) -> str:
    """Return an option as it was given: --web, or --no-web."""
    off = param.secondary_opts and ctx.params.get(param.name or "") is False
    return param.secondary_opts[0] if off else param.opts[0]


def _summary(up: ClusterUp) -> list[str]:
    cluster = up.cluster
    lines = [f"up in {up.took_s:.1f} s: {cluster.dir}"]
    if cluster.mode in LESSER_MODES:
        lines.append(f"{LESSER_MODES[cluster.mode]}; `galaxy doctor` says what would enable the rest")
    if cluster.flower:
        lines.append(f"Flower       {cluster.flower}")
    lines.append(f"server       {without_password(cluster.url)}")
    return lines


def _down_command(cluster: ClusterFile) -> str:
    default = cluster.dir == str(default_dir())
    return "galaxy down" if default else f"galaxy down --dir {cluster.dir}"


def _save_as_current(directory: str, console: Console) -> None:
    """Make this the current context of the user, who may have no home folder to keep it in."""
    before = _current_context()
    with contextlib.suppress(GalaxyError, OSError, RuntimeError):
        now = save_context(dir=directory)
        if before is not None and before.name != now.name:
            line = f'commands use this cluster now, context "{now.name}"'
            print_line(console, f"{line}; `galaxy context use {before.name}` goes back")
