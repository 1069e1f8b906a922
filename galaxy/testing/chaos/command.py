"""``galaxy-chaos``: inject faults into a cluster that it starts, and check that it keeps its promises."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from galaxy.cli.local.supervisor_process import signals_as_interrupts
from galaxy.errors import FAILED, GalaxyError, UsageError
from galaxy.testing.chaos.engine import Engine
from galaxy.testing.chaos.faults import FAULTS, select_faults
from galaxy.testing.chaos.real_cluster import RealCluster
from galaxy.units import parse_duration

INTERRUPTED: Final = 130


class _Duration(click.ParamType[float]):
    """``90``, ``10m``, ``2h``, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except (ValueError, GalaxyError) as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog="Faults: " + ", ".join(FAULTS) + ".",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--for", "lasts_s", type=_Duration(), default=600.0, metavar="TIME", help="How long [10m].")
@click.option(
    "--rounds", type=click.IntRange(min=1), metavar="N", help="Inject every fault N times, instead of --for."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Decides the order of faults and changes."
)
@click.option(
    "--faults", "names", default="", metavar="NAME,...",
    help="Only these: names, verbs (kill, stop, cut) or parts.",
)  # fmt: skip
@click.option("--agents", type=click.IntRange(1, 8), default=1, show_default=True, help="Agents.")
@click.option(
    "--leaders", type=click.IntRange(1, 4), default=1, show_default=True, help="Leaders of each kind."
)
@click.option(
    "--within", "within_s", type=_Duration(), default=10.0, metavar="TIME",
    help="The promise: recovered at most this long after a fault [10s].",
)  # fmt: skip
@click.option(
    "--dir", "directory", metavar="DIR", help="Keep the cluster's folder here [a temporary one, removed]."
)
def chaos(
    lasts_s: float,
    rounds: int | None,
    seed: int,
    names: str,
    agents: int,
    leaders: int,
    within_s: float,
    directory: str | None,
) -> int:
    """Kill, stop and cut off the parts of a cluster while programs count and jobs change.

    Starts a cluster, injects faults at random, and after each one waits until the
    observed state equals the desired state again. Exit code 1, with a timeline, when a promise is
    broken: a count was reset, a second copy ran, something accepted was lost, or recovery took too
    long.
    """
    selected = select_faults([name for name in names.split(",") if name], leaders=leaders)
    folder = None if directory is None else Path(directory).expanduser()
    if folder is not None and (folder / "c").exists():
        raise UsageError(f"{folder / 'c'} exists already", hint="name a new folder")
    with signals_as_interrupts(), RealCluster(agents=agents, leaders=leaders, folder=folder) as cluster:
        click.echo(f"seed {seed}, {len(selected)} faults, a cluster of {agents} agents in {cluster.folder}")
        engine = Engine(cluster, selected, seed=seed, within_s=within_s, output=click.echo)
        try:
            report = engine.run(lasts_s, rounds=rounds or 0)
        finally:
            if engine.report.faults:
                click.echo("\n".join(["", *engine.report.lines()]))
        if report.violations:
            cluster.keep = True
            broken = [f"BROKEN: {violation}" for violation in report.violations]
            click.echo("\n".join(["", *engine.timeline, "", cluster.log_tails(), "", *broken]))
            click.echo(f"seed {seed}; the logs are kept in {cluster.folder}/logs")
        click.echo(report.json())
        return FAILED if report.violations else 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = chaos.main(list(arguments), prog_name="galaxy-chaos", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except GalaxyError as error:
        click.echo(f"galaxy-chaos: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
