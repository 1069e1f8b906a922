"""``galaxy job list`` and ``galaxy job show``."""

from __future__ import annotations

import json
import sys
import time

import click

from galaxy.cli.job.follow import diagnosis_lines
from galaxy.cli.lazy import Command
from galaxy.cli.options import Target, all_job_names, cluster_options, complete, output_options
from galaxy.cli.output import (
    Output,
    format_age,
    format_time,
    one_line,
    paint,
    paint_state,
    print_err,
    print_out,
    wants_colour,
)
from galaxy.cli.tables import endpoint_rows, event_lines, job_rows, limit_lines, pod_rows, task_rows
from galaxy.model.api.jobs import JobList
from galaxy.model.api.views import JobSummary, JobView
from galaxy.model.jobspec.spec import DeploySpec, JobSpec
from galaxy.model.resources import amounts_text
from galaxy.units import counted

EVENTS = 10


@click.command(
    "list",
    cls=Command,
    examples="""\
  galaxy job list                 list jobs that run or failed
  galaxy job list --all           include jobs that have ended
  galaxy job list -o json
""",
)
@click.option("-a", "--all", "every", is_flag=True, help="Include ended jobs, as far as history goes.")
@output_options
@cluster_options
def list_(target: Target, output: Output, every: bool) -> None:
    """List jobs."""
    with target.open() as galaxy:
        found = galaxy.job_list(all=every)
    jobs = list(found.jobs)
    if output.print_data(jobs, [job.name for job in jobs]):
        return
    if jobs:
        titles, rows = job_rows(jobs, time.time(), wide=output.wide)
        output.print_table(titles, rows)
    for line in notes_on(found, every=every):
        print_err(line)


@click.command(
    cls=Command,
    examples="""\
  galaxy job show web             show pods, programs, endpoints, events
  galaxy job show web -o wide     with addresses, incarnations and pids
  galaxy job show web -o json     everything, including the spec
  galaxy job show web --spec      the job file as it was submitted; for the job's owner
""",
)
@click.argument("job", shell_complete=complete(all_job_names))
@click.option(
    "--spec", "submitted", is_flag=True, help="Print the job file as it was submitted, credentials included."
)
@output_options
@cluster_options
def show(target: Target, output: Output, job: str, submitted: bool) -> None:
    """Show everything about one job, named by its name, id, or the start of its id.

    URLs are shown without credentials. `--spec` prints the job file of the current revision as it was
    submitted, as YAML or with `-o json` as JSON; only the job's owner may ask for it.
    """
    with target.open() as galaxy:
        if submitted:
            _print_spec(galaxy.submitted_spec(job), output)
            return
        view = galaxy.job(job)
        if output.print_data(view, [view.summary.job]):
            return
        for line in head_lines(view, time.time(), wants_colour(sys.stdout)):
            print_out(line, raw=True)
        _print_tables(view, output)
        troubled = not view.settled or view.summary.state in ("failed", "stalled") or view.summary.failed > 0
        if troubled and view.pods:
            _print_title("Why")
            for line in diagnosis_lines(galaxy, view):
                print_out(line)


def notes_on(found: JobList, *, every: bool) -> list[str]:
    """Return what the table of jobs does not say: that it is empty, and what others have."""
    lines = []
    if not found.jobs and found.hidden:
        lines.append("you have no jobs" if every else "none of your jobs runs; --all shows ended ones")
    elif not found.jobs:
        none = "no jobs; `galaxy job run FILE` runs one"
        lines.append(none if every else "no jobs run; --all shows ended ones")
    if found.hidden:
        others = f"{counted(found.hidden, 'job')} of other users not shown"
        lines.append(f"{others}; an operator can grant list_job on a pool")
    return lines


def _print_spec(spec: JobSpec, output: Output) -> None:
    """Print ``spec`` as a job file."""
    from galaxy.client.source.yaml_format import write_yaml
    from galaxy.model.jobspec.writing import to_tree

    tree = to_tree(spec)
    if output.form == "json":
        print_out(json.dumps(tree, indent=2, ensure_ascii=False), raw=True)
    else:
        print_out(write_yaml(tree).rstrip("\n"), raw=True)


def head_lines(view: JobView, now_s: float, colour: bool) -> list[str]:
    """Return the lines above the tables, which describe the job and its state."""
    summary, deploy = view.summary, view.spec.deploy
    state = paint_state(one_line(summary.state), colour)
    if view.exit_code is not None:
        state += f", exit code {view.exit_code}"
    where = ", ".join(deploy.pools) or "any pool"
    facts = [
        ("Job", f"{summary.name} ({summary.job}), {summary.type}, owner {summary.user or 'unknown'}"),
        ("State", f"{state}; {'settled' if view.settled else 'in progress'}"),
        ("Pods", pods_line(summary)),
        ("Revision", f"{summary.revision}"
                     + (f", rolling out from {view.rollout_from}" if view.rollout_from else "")),
        ("Placed", where + (f", tag {deploy.tag}" if deploy.tag else "")
                   + (f", {deploy.max_per_host} per host at most" if deploy.max_per_host else "")
                   + "".join(f", {text}" for text in constraint_texts(deploy))),
        ("Resources", amounts_text(summary)
                      + (f"; in force: {amounts_text(summary.in_force)}" if summary.in_force else "")),
        ("Created", f"{format_time(summary.created_s)}, {format_age(summary.created_s, now_s) or '0s'} ago"),
    ]  # fmt: skip
    facts += [("Limits", line) for line in limit_lines(view)]
    texts = [text if name == "State" else one_line(text) for name, text in facts]
    return [
        f"{paint(name.ljust(9), 'bold', colour)} {text}" for (name, _), text in zip(facts, texts, strict=True)
    ]


def constraint_texts(deploy: DeploySpec) -> list[str]:
    """Return what restricts the placement of a job's pods beyond pools and tag, in words."""
    texts = [
        f"{word} {', '.join(marks)}"
        for word, marks in (
            ("requires", deploy.require),
            ("forbids", deploy.forbid),
            ("prefers", deploy.prefer),
            ("near", deploy.affinity),
            ("apart from", deploy.anti_affinity),
        )
        if marks
    ]
    return texts + ([f"spread over {deploy.spread}"] if deploy.spread else [])


def pods_line(summary: JobSummary) -> str:
    """Return the counts of a job's pods; those of a batch job are meant to finish, others to be healthy."""
    batch = summary.type == "batch"
    first = f"{summary.finished if batch else summary.healthy} of {summary.replica} "
    first += "finished" if batch else "healthy"
    if summary.state == "removed":
        return f"{first}, removed"
    return (
        f"{first}, {summary.running} running, {summary.pending} pending, {summary.deploying} deploying, "
        f"{summary.failed} failed" + ("" if batch else f", {summary.finished} finished")
    )


def _print_tables(view: JobView, output: Output) -> None:
    now_s = time.time()
    if view.pods:
        _print_title("Pods")
        output.print_table(*pod_rows(view.pods, now_s, wide=output.wide))
    titles, tasks = task_rows(view.pods, now_s)
    if tasks:
        _print_title("Programs")
        output.print_table(titles, tasks)
    if view.endpoints:
        _print_title("Endpoints")
        output.print_table(*endpoint_rows(view.endpoints))
    if view.events and view.settled:
        _print_title("Events")
        for line in event_lines(view, now_s, EVENTS):
            print_out(line)


def _print_title(title: str) -> None:
    print_out(f"\n{paint(title, 'bold', wants_colour(sys.stdout))}", raw=True)
