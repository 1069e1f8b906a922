"""``galaxy agent list`` and ``galaxy agent show``."""

from __future__ import annotations

import time

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, agent_names, cluster_options, complete, output_options
from galaxy.cli.output import Output, format_age, one_line, print_err, print_out
from galaxy.cli.tables import agent_rows, agent_state_text
from galaxy.model.api.views import AgentView
from galaxy.model.resources import ASKED, amounts_text
from galaxy.model.stored.agent import Drain, Mark
from galaxy.units import format_duration


@click.command("list", cls=Command, examples="  galaxy agent list\n  galaxy agent list -o json\n")
@output_options
@cluster_options
def list_(target: Target, output: Output) -> None:
    """List agents, with their assigned and total resources."""
    with target.open() as galaxy:
        listed = galaxy.agent_list()
    agents = list(listed.agents)
    if output.print_data(agents, [agent.agent for agent in agents]):
        return
    if agents:
        titles, rows = agent_rows(agents, time.time(), wide=output.wide)
        output.print_table(titles, rows)
    elif not listed.refused and not listed.registered:
        print_err("no agents; `galaxy agent --redis-file FILE` joins with this host")
    for row in listed.registered:
        pool = f" for pool {row.pool}" if row.pool else ""
        print_err(one_line(f"registered{pool}, not joined yet: {row.agent}"))
    for reason in listed.refused:
        print_err(one_line(f"refused: {reason.message}"))


@click.command(cls=Command, examples="  galaxy agent show h1\n")
@click.argument("name", shell_complete=complete(agent_names))
@output_options
@cluster_options
def show(target: Target, output: Output, name: str) -> None:
    """Show one agent: inventory, assigned and used resources, containers."""
    with target.open() as galaxy:
        view = galaxy.agent(name)
    if output.print_data(view, [view.agent]):
        return
    for line in agent_lines(view, time.time()):
        print_out(line)


def agent_lines(view: AgentView, now_s: float) -> list[str]:
    """Return a description of one agent, one property per line."""
    info, usage = view.info, view.usage
    rows = [
        ("Agent", f"{view.agent} at {info.address}, version {info.version}"),
        ("State", f"{agent_state_text(view)}, last heartbeat {format_age(view.beat_s, now_s) or '0s'} ago"),
        *([("Cordoned", mark_text(view.cordon, now_s))] if view.cordon else []),
        *([("Drain", drain_text(view.drain, now_s))] if view.drain else []),
        *([("Trouble", view.trouble)] if view.trouble else []),
        ("Pool", info.pool + (f", tags {', '.join(info.tags)}" if info.tags else "")),
        *([("Labels", ", ".join(f"{k}={v}" for k, v in sorted(view.labels.items())))] if view.labels else []),
        ("Mode", f"{info.mode}; enforced: {', '.join(info.enforced) or 'nothing'}"),
        ("Kernel", f"{info.kernel}, cgroup {info.cgroup or 'none'}"),
        ("Ports", f"{info.ports_low}-{info.ports_high}"),
        *((row.title, f"{row.text(view.assigned)} assigned of {row.text(info)}") for row in ASKED),
    ]
    if usage is not None:
        rows.append(
            ("Used", f"{amounts_text(usage)}, load {usage.load1:.2f}, "
                     f"{format_age(usage.at_s, now_s) or '0s'} ago")
        )  # fmt: skip
    rows.append(("Hosts", f"{len(view.containers)} containers"))
    lines = [*(f"{name.ljust(9)} {text}" for name, text in rows), *(f"  {c}" for c in view.containers)]
    return [one_line(line) for line in lines]


def mark_text(mark: Mark, now_s: float) -> str:
    """Return who decided something, when and why."""
    why = f": {mark.reason}" if mark.reason else ""
    return f"by {mark.by} {format_age(mark.at_s, now_s) or '0s'} ago{why}"


def drain_text(drain: Drain, now_s: float) -> str:
    """Return who drains an agent, when and why, and until when."""
    text = mark_text(drain, now_s)
    if drain.done_s:
        return f"{text}; empty for {format_age(drain.done_s, now_s) or '0s'}"
    if drain.force:
        return f"{text}; containers are evicted"
    if not drain.until_s:
        return f"{text}; without a deadline"
    left_s = drain.until_s - now_s
    if left_s <= 0:
        return f"{text}; the deadline is over, containers are evicted"
    return f"{text}; containers are evicted in {format_duration(int(left_s) or 1)}"
