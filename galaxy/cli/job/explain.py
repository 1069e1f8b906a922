"""``galaxy explain``: why pods wait for a host, and what would change that."""

from __future__ import annotations

from collections.abc import Sequence

import click

from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, cluster_options, complete, output_options, pod_names
from galaxy.cli.output import Output, one_line, print_err, print_out
from galaxy.cli.tables import pod_reason_text
from galaxy.errors import NotFound
from galaxy.ids import split_pod
from galaxy.model.api.views import PodView


@click.command(
    cls=Command,
    examples="""\
  galaxy explain web                 say why pods of a job wait
  galaxy explain web-3f9a2c.1        say it for one pod
  galaxy explain web -o json         a list with pod, state, agent, reason
""",
)
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@output_options
@cluster_options
def explain(target: Target, output: Output, name: str) -> None:
    """Say why pods wait for a host: how many hosts lack what, and the smallest changes that would do.

    Each change has been checked: with it, one more pod fits. Pods that have a host are listed with it.
    """
    job, index = _job_and_index(name)
    with target.open() as galaxy:
        view = galaxy.job(job)
    pods = [pod for pod in view.pods if index is None or pod.index == index]
    if not pods and index is not None:
        raise NotFound(f"job {view.summary.name} has no pod {index}", hint=f"galaxy job show {job}")
    rows = [{"pod": pod.pod, "state": pod.state, "agent": pod.agent, "reason": pod.reason} for pod in pods]
    if output.print_data(rows, [pod.pod for pod in pods]):
        return
    if not pods:
        print_err(f"job {view.summary.name} has no pods")
    for line in explanation_lines(pods):
        print_out(line, raw=True)


def explanation_lines(pods: Sequence[PodView]) -> list[str]:
    """Return the explanation of pods; those that wait for the same reason share one."""
    groups: dict[object, list[PodView]] = {}
    for pod in pods:
        groups.setdefault(repr(pod.reason) if _waits(pod) else pod.pod, []).append(pod)
    return [one_line(line) for same in groups.values() for line in _lines(same)]


def _job_and_index(name: str) -> tuple[str, int | None]:
    try:
        return split_pod(name)
    except ValueError:
        return name, None


def _waits(pod: PodView) -> bool:
    """Return whether a pod waits for a host; one that was moved off a host still names it."""
    return pod.state == "pending" or not pod.agent


def _lines(pods: Sequence[PodView]) -> list[str]:
    first, others = pods[0], len(pods) - 1
    names = first.pod + (f" and {others} more" if others else "")
    where = f" on {first.agent}" if first.agent and not _waits(first) else ""
    why = pod_reason_text(first)
    lines = [f"{names}: {first.state}{where}" + (f": {why}" if why else "")]
    reason = first.reason
    if reason is None or not (_waits(first) or reason.nearest):  # A resize that lacks room has hosts as well.
        return lines
    for cause, count in sorted(reason.counts.items(), key=lambda pair: (-pair[1], pair[0])):
        hosts = reason.hosts.get(cause, ())
        named = ", ".join(hosts) + (", ..." if count > len(hosts) else "")
        lines.append(f"{count:7}  {cause:14} {named}")
    lines += [f"{'nearest':>16}: {text}" for text in reason.nearest]
    for number, text in enumerate(reason.changes):
        lines.append(f"{'or' if number else 'would fit with':>16}: {text}")
    return lines
