"""``galaxy status``: leaders, agents, jobs and totals; from Redis alone when AppMaster does not answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, output_options
from galaxy.cli.output import Output, format_age, one_line, print_err, print_out
from galaxy.cli.tables import reason_text
from galaxy.errors import Unreachable
from galaxy.model.api.views import ClusterStatusView, LeaderView
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.resources import ASKED
from galaxy.units import format_bytes

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy
from galaxy.units import counted

LEFT_NAMES_MAX = 5


@click.command(cls=Command, examples="  galaxy status\n  galaxy status -o json\n")
@output_options
@cluster_options
def status(target: Target, output: Output) -> None:
    """Show the leaders, the number of agents, and assigned and total resources."""
    with target.open() as galaxy:
        try:
            view = galaxy.status()
        except Unreachable:
            if output.for_people:
                _print_without_appmaster(galaxy)
            raise
        where = galaxy.cluster
    if output.print_data(view, [leader.role for leader in view.leaders]):
        return
    named = f"in {where.dir}" if where.dir else "remote"
    for line in [
        f"{'Cluster'.ljust(9)} {named}, named by {where.named_by}",
        *status_lines(view, time.time()),
    ]:
        print_out(line)


def status_lines(view: ClusterStatusView, now_s: float) -> list[str]:
    """Return a description of a cluster, one property per line."""
    lines = leader_lines(view.leaders, now_s)
    lines += [
        f"{name.ljust(9)} {_counts(counts)}"
        for name, counts in (("Agents", view.agents), ("Jobs", view.jobs), ("Pods", view.pods))
    ]
    lines += [
        f"{row.title.ljust(9)} {row.text(view.assigned)} assigned of {row.text(view.total)}" for row in ASKED
    ]
    if view.packages:
        taken, limit = format_bytes(view.packages_bytes), format_bytes(view.packages_bytes_max)
        lines.append(f"{'Packages'.ljust(9)} {view.packages}: {taken} of {limit}")
    if view.safe_mode is not None:
        lines.append(
            f"{'Safe mode'.ljust(9)} {reason_text(view.safe_mode).removeprefix('safe mode: ') or 'on'}"
        )
    if view.closed:
        lines.append(f"{'Closed'.ljust(9)} {_counts(view.closed)}; nothing new is placed there")
    lines += _left_lines(view)
    lines += [f"{'Refused'.ljust(9)} {reason_text(reason)}" for reason in view.refused]
    return [one_line(line) for line in lines]


def _left_lines(view: ClusterStatusView) -> list[str]:
    """Return a line about programs that may run twice: on a host without an agent, and elsewhere."""
    if not view.left:
        return []
    where = ", ".join(f"{count} on {agent}" for agent, count in sorted(view.left.items())[:LEFT_NAMES_MAX])
    more = len(view.left) - LEFT_NAMES_MAX
    hosts = f"{where} and on {more} more hosts" if more > 0 else where
    total = counted(sum(view.left.values()), "old container")
    return [f"{'Left'.ljust(9)} {total} may still run beside the new ones until the host returns: {hosts}"]


def leader_lines(leaders: tuple[LeaderView, ...], now_s: float) -> list[str]:
    """Return one line per role: its leader and since when, or that there is none."""
    known = {leader.role: leader for leader in leaders}
    lines = []
    for role, name in ((RESMAN, "ResMan"), (APPMASTER, "AppMaster")):
        leader = known.get(role)
        text = "nobody leads"
        if leader is not None:
            age = format_age(leader.since_s, now_s) or "0s"
            text = f"{leader.address} leads for {age}, epoch {leader.epoch}"
        lines.append(one_line(f"{name.ljust(9)} {text}"))
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if count)
    return f"{total}" + (f": {parts}" if parts else "")


def _print_without_appmaster(galaxy: Galaxy) -> None:
    """Print what Redis alone shows: leaders, and agents with a recent heartbeat."""
    for line in leader_lines(tuple(galaxy.leaders()), time.time()):
        print_err(line)
    seen = galaxy.heartbeats()
    recent = sum(seen.now_s - heartbeat.at_s < 10 for heartbeat in seen.heartbeats)
    print_err(f"{'Agents'.ljust(9)} {recent} of {len(seen.heartbeats)} sent a heartbeat within 10s")
