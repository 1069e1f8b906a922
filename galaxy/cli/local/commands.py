"""``galaxy up`` and ``galaxy down``: a whole cluster on this host, started and ended."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from galaxy.cli.lazy import Command
from galaxy.cli.local.display import Display
from galaxy.cli.local.first_job import FirstJob
from galaxy.cli.local.layout import Layout, lock_folder
from galaxy.cli.local.local_cluster import TIMEOUT_MAX_S, TIMEOUT_MIN_S, TIMEOUT_S, ClusterUp, UpOptions
from galaxy.cli.local.server import without_password
from galaxy.cli.local.shutdown import stop_cluster
from galaxy.cli.local.supervisor_process import SupervisorHandle, signals_as_interrupts, start_supervisor
from galaxy.cli.options import Duration, UidRange
from galaxy.client.cluster_file import ClusterFile, default_dir, read_cluster
from galaxy.client.contexts import load_contexts, remove_context, save_context
from galaxy.errors import GalaxyError, UsageError

MODES = {
    "full": "",
    "userns": "lesser mode: without root there are namespaces but no enforced limits",
    "process": "lesser mode: programs are plain processes, nothing is enforced or isolated",
}


@click.command(cls=Command)
@click.option("--dir", "directory", metavar="DIR", envvar="GALAXY_DIR", help="Keep everything in DIR.")
@click.option("--detach", "-d", is_flag=True, help="Return when it is up; `galaxy down` ends it.")
@click.option("--redis", metavar="URL", help="Use this Redis or Valkey instead of starting one.")
@click.option(
    "--server",
    type=click.Choice(["redis", "valkey", "embedded"]),
    help="Which server to start; by default the first of these that is here.",
)
@click.option("--listen", metavar="ADDRESS", help="Let other hosts' agents join at this address of ours.")
@click.option("--agents", type=click.IntRange(1, 8), default=1, help="Agents to run, as if they were hosts.")
@click.option("--web/--no-web", default=True, help="Start Flower.")
@click.option(
    "--web-port", type=click.IntRange(1, 65535), metavar="PORT", help="Flower's port [5555, or next]."
)
@click.option("--redis-port", type=click.IntRange(1, 65535), metavar="PORT", help="The server's port.")
@click.option("--uids", type=UidRange(), help="Kernel users for containers, one each [1000000-1262143].")
@click.option("--run-user", metavar="USER", help="One account that all programs run as instead.")
@click.option(
    "--timeout", "timeout_s", type=Duration(TIMEOUT_MIN_S, TIMEOUT_MAX_S), default=f"{TIMEOUT_S:.0f}s",
    metavar="TIME", show_default=True, help="How long the server, and then the parts, may take to come up.",
)  # fmt: skip
@click.option("--run", "job", metavar="FILE", help="Run this job file once the cluster is up.")
def up(directory: str | None, detach: bool, job: str | None, **wishes: object) -> None:
    """Start a whole cluster on this host.

    A server, ResMan, AppMaster, an Agent and Flower, with all their state, sockets and logs
    below one folder. In the foreground Ctrl-C ends all of it.
    """
    given = {name.replace("-", "_"): wish for name, wish in wishes.items() if wish is not None}
    wanted = UpOptions(dir=str(_folder(directory)), detach=detach, **given)  # type: ignore[arg-type]
    console = Console(stderr=False)
    layout = Layout(Path(wanted.dir))
    layout.make()
    held = lock_folder(layout)
    if held is None:
        _already(layout, job, console)
        return
    back = start_supervisor(wanted, layout, held)
    with signals_as_interrupts():
        try:
            _follow(back, wanted, job, console)
        except KeyboardInterrupt:
            _end(back, console)
            sys.exit(130)
        except BaseException:
            back.end()
            _drain(back)
            raise
    if not detach:
        back.wait()


@click.command(cls=Command)
@click.option("--dir", "directory", metavar="DIR", envvar="GALAXY_DIR", help="The cluster's folder.")
@click.option("--purge", is_flag=True, help="Remove the folder too: jobs, logs, history.")
def down(directory: str | None, purge: bool) -> None:
    """End the cluster of a folder: every process, container, mount and cgroup of it.

    What is wanted stays in the folder: the next `galaxy up` there runs the same jobs again.
    """
    layout = Layout(_folder(directory or _last()))
    console = Console(stderr=False)
    with Display(console) as display:
        ran, left = stop_cluster(layout, display.show)
    if left:
        raise GalaxyError(f"cannot end all of the cluster in {layout.root}", details=left.lines())
    _forget(layout)
    if purge and layout.plan.exists():
        shutil.rmtree(layout.root)
    if ran:
        console.print(f"nothing of the cluster in {layout.root} runs any more", markup=False, soft_wrap=True)
    else:
        console.print(f"no cluster runs in {layout.root}", markup=False, soft_wrap=True)


def _folder(directory: str | None) -> Path:
    """Return the folder that is meant, without symbolic links: the kernel names it so.

    Raises:
        UsageError: there is a file of that name.
    """
    path = (Path(directory) if directory else default_dir()).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is not a folder")
    return path


def _last() -> str | None:
    """Return the folder of the cluster that was started or chosen last, if it is on this host."""
    with contextlib.suppress(GalaxyError, RuntimeError):
        known = load_contexts()
        current = known.get(known.current)
        return current.dir if current and current.dir else None
    return None


def _follow(back: SupervisorHandle, wanted: UpOptions, job: str | None, console: Console) -> None:
    """Show the start, run the job, and stay until the end unless detached."""
    with Display(console) as display:
        up = back.until_up(display.show)
    _remember(wanted.dir)
    _say(console, *_told(up))
    if job:
        FirstJob(up.cluster, Path(job), console).run()
    if wanted.detach:
        _say(console, f"`{_down(up.cluster)}` ends it")
        return
    _say(console, "Ctrl-C ends it")
    with Display(console) as display:
        back.until_end(display.show)
    raise GalaxyError("the cluster's supervisor ended", hint=f"see {wanted.dir}/logs/supervisor.log")


def _end(back: SupervisorHandle, console: Console) -> None:
    """End everything, patiently: a second Ctrl-C does not stop the ending half-way."""
    back.end()
    with Display(console) as display:
        while True:
            try:
                back.until_end(display.show)
                break
            except KeyboardInterrupt:
                continue
    back.wait()


def _drain(back: SupervisorHandle) -> None:
    """Wait for the end of a back that has nothing more to say that matters."""
    with contextlib.suppress(GalaxyError):
        back.until_end(lambda _: None)
    back.wait()


def _already(layout: Layout, job: str | None, console: Console) -> None:
    """Say that a cluster runs in this folder, and run the job on it."""
    cluster = read_cluster(layout.root)
    supervisor = (
        next((ref for ref in cluster.processes if ref.name == "supervisor"), None) if cluster else None
    )
    if cluster is None or supervisor is None or not supervisor.is_running():
        raise GalaxyError(
            f"another `galaxy up` or `galaxy down` is at work in {layout.root}", hint="wait a moment"
        )
    _remember(cluster.dir)
    _say(console, f"a cluster already runs in {cluster.dir} (process {supervisor.pid})")
    if cluster.flower:
        _say(console, f"Flower       {cluster.flower}")
    if job:
        FirstJob(cluster, Path(job), console).run()


def _told(up: ClusterUp) -> list[str]:
    cluster = up.cluster
    lines = [f"up in {up.took_s:.1f} s: {cluster.dir}"]
    if MODES.get(cluster.mode, ""):
        lines.append(f"{MODES[cluster.mode]}; `galaxy doctor` says what would enable the rest")
    if cluster.flower:
        lines.append(f"Flower       {cluster.flower}")
    lines.append(f"server       {without_password(cluster.url)}")
    return lines


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _down(cluster: ClusterFile) -> str:
    default = cluster.dir == str(default_dir())
    return "galaxy down" if default else f"galaxy down --dir {cluster.dir}"


def _remember(directory: str) -> None:
    """Make this the cluster that the command line means; a user without a home has no memory."""
    with contextlib.suppress(GalaxyError, OSError, RuntimeError):
        save_context(dir=directory)


def _forget(layout: Layout) -> None:
    with contextlib.suppress(GalaxyError, OSError, RuntimeError):
        remove_context(dir=layout.root)
