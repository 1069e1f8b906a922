"""Views as rows of tables. Pure: structs and a time in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from galaxy.cli.output import format_age, format_time
from galaxy.model.api.views import (
    AgentView,
    EndpointView,
    JobSummary,
    JobView,
    PackageView,
    PodView,
    SecretView,
    TaskView,
)
from galaxy.model.messages.container import Reason
from galaxy.model.resources import ASKED, Resource
from galaxy.model.stored.job import PodPhase
from galaxy.units import format_bytes, format_cpu

Rows = tuple[list[str], list[list[str]]]
"""The titles of the columns, and the rows."""


def job_names(view: PackageView | SecretView) -> str:
    """Return the jobs that use a package or a secret."""
    return ", ".join((*view.jobs, "...") if view.more_jobs else view.jobs)


def job_rows(jobs: Iterable[JobSummary], now_s: float, *, wide: bool = False) -> Rows:
    """Return the table of ``galaxy job list``."""
    narrow, more = [row for row in ASKED if not row.wide], [row for row in ASKED if row.wide]
    titles = ["NAME", "ID", "TYPE", "STATE", "HEALTHY", "REV", *_titles(narrow), "UPDATED"]
    if wide:
        titles += ["USER", "R/P/D/F/E", *_titles(more), "CREATED"]
    titles.append("REASON")
    rows = []
    for job in jobs:
        row = [
            job.name, job.job, job.type, job.state, healthy_text(job), str(job.revision),
            *(size_text(job, row) for row in narrow), format_age(job.updated_s, now_s),
        ]  # fmt: skip
        if wide:
            counts = (job.running, job.pending, job.deploying, job.failed, job.finished)
            row += [
                job.user,
                "/".join(map(str, counts)),
                *(size_text(job, row) for row in more),
                format_time(job.created_s),
            ]
        rows.append([*row, reason_text(job.reason)])
    return titles, rows


def size_text(job: JobSummary, resource: Resource) -> str:
    """Return what the containers of a job ask for, after what they have if that differs: ``2 -> 9``."""
    asked = resource.text(job)
    has = resource.text(job.in_force) if job.in_force is not None else asked
    return asked if has == asked else f"{has} -> {asked}"


LIMIT_HOSTS_MAX = 5


def limit_lines(view: JobView) -> list[str]:
    """Return which limits of a job's pods are not enforced, and on which hosts."""
    hosts: dict[tuple[str, ...], set[str]] = {}
    for pod in view.pods:
        if pod.not_enforced:
            hosts.setdefault(pod.not_enforced, set()).add(pod.agent)
    lines = []
    for limits, names in sorted(hosts.items()):
        shown = ", ".join(sorted(names)[:LIMIT_HOSTS_MAX])
        more = f" and {len(names) - LIMIT_HOSTS_MAX} more" if len(names) > LIMIT_HOSTS_MAX else ""
        lines.append(f"{', '.join(limits)} not enforced on {shown}{more}: lesser mode, see galaxy agent show")
    return lines


def pod_rows(pods: Iterable[PodView], now_s: float, *, wide: bool = False) -> Rows:
    """Return the table of a job's pods."""
    titles = ["POD", "STATE", "HEALTHY", "REV", "AGENT", "PORTS", "RESTARTS", "CPU", "MEMORY", "UPDATED"]
    if wide:
        titles += ["ADDRESS", "INCARNATION", "PID"]
    titles.append("REASON")
    rows = []
    for pod in pods:
        ports = ",".join(f"{name}:{port}" for name, port in sorted(pod.ports.items()))
        measured, waits = pod.memory_bytes > 0, pod.state == PodPhase.PENDING
        row = [
            pod.pod, pod.state, _health_of(pod), str(pod.revision), "-" if waits else pod.agent or "-",
            ports or "-", restarts_text(pod), format_cpu(pod.cpu_milli) if measured else "-",
            format_bytes(pod.memory_bytes) if measured else "-", format_age(pod.updated_s, now_s),
        ]  # fmt: skip
        if wide:
            row += ["-" if waits else pod.address or "-", str(pod.incarnation), str(pod.pid or "-")]
        rows.append([*row, pod_reason_text(pod)])
    return titles, rows


def healthy_text(job: JobSummary) -> str:
    """Return how many pods of a job are healthy, of how many; a pod that has finished counts as healthy."""
    if job.state in ("removed", "stopped") and not job.finished:
        return "-"
    return f"{job.healthy + job.finished}/{job.replica}"


def restarts_text(pod: PodView) -> str:
    """Return a pod's restarts on its revision, and those on earlier revisions: ``0 (6 before)``."""
    before = pod.restarts - pod.revision_restarts
    return f"{pod.revision_restarts} ({before} before)" if before > 0 else str(pod.revision_restarts)


def _health_of(pod: PodView) -> str:
    if pod.state in ("finished", "stopped", "removed"):
        return "-"
    return "yes" if pod.healthy else "no"


def task_rows(pods: Iterable[PodView], now_s: float) -> Rows:
    """Return the table of the programs in ``pods``."""
    titles = ["POD", "TASK", "STATE", "HEALTHY", "VERSION", "RESTARTS", "UP", "LAST EXIT", "REASON"]
    rows = []
    for pod in pods:
        for task in pod.tasks:
            healthy = "-" if task.healthy is None else "yes" if task.healthy else "no"
            up = format_age(task.started_s or 0, now_s) if task.state == "running" else ""
            last = str(task.last_exit) if task.last_exit else "-"
            rows.append(
                [pod.pod, task.name, task.state, healthy, task.version or "-", str(task.restarts), up or "-",
                 last, reason_text(task.reason) or oom_text(task)]
            )  # fmt: skip
    return titles, rows


def oom_text(task: TaskView) -> str:
    """Return how many processes of a program the kernel killed for memory; empty if none."""
    kills = task.oom_kills
    if kills is None:
        return ""
    named = f", last {kills.processes}" if kills.processes else ""
    return f"{kills.count} OOM-killed{named}"


def endpoint_rows(endpoints: Iterable[EndpointView]) -> Rows:
    """Return the table of ``galaxy discover``."""
    rows = [[e.service, e.pod, e.address, str(e.port), e.state] for e in endpoints]
    return ["SERVICE", "POD", "ADDRESS", "PORT", "STATE"], rows


def agent_rows(agents: Iterable[AgentView], now_s: float, *, wide: bool = False) -> Rows:
    """Return the table of ``galaxy agent list``, with assigned and total resources."""
    narrow, more = [row for row in ASKED if not row.wide], [row for row in ASKED if row.wide]
    titles = ["AGENT", "STATE", "POOL", *_titles(narrow), "CONTAINERS", "HEARTBEAT"]
    if wide:
        titles += [*_titles(more), "TAGS", "MODE", "ADDRESS", "PORTS"]
        titles += ["ENFORCED", "KERNEL", "CGROUP", "VERSION"]
    rows = []
    for agent in agents:
        info = agent.info
        row = [agent.agent, agent_state_text(agent), info.pool, *_assigned(agent, narrow)]
        row += [str(len(agent.containers)), format_age(agent.beat_s, now_s)]
        if wide:
            row += [*_assigned(agent, more), ",".join(info.tags) or "-", info.mode]
            row += [info.address, f"{info.ports_low}-{info.ports_high}"]
            row += [",".join(info.enforced) or "-", info.kernel, info.cgroup or "-", info.version]
        rows.append(row)
    return titles, rows


def _assigned(agent: AgentView, resources: Iterable[Resource]) -> list[str]:
    return [f"{row.text(agent.assigned)}/{row.text(agent.info)}" for row in resources]


def agent_state_text(agent: AgentView) -> str:
    """Return the state of an agent in a few words, with whether it takes new containers."""
    words = [agent.state.value]
    if agent.drain is not None:
        going = "going offline" if agent.drain.offline else "draining"
        words.append(going if not agent.drain.done_s else "offline" if agent.drain.offline else "drained")
    if agent.cordon is not None:
        words.append("cordoned")
    if agent.trouble:
        words.append("in trouble")
    return ", ".join(words)


def reason_text(reason: Reason | None) -> str:
    """Format a reason in one line."""
    return (reason.message or reason.code) if reason else ""


def pod_reason_text(pod: PodView) -> str:
    """Return why a pod is not in its desired state: its own reason, or that of one of its programs."""
    if pod.reason:
        return reason_text(pod.reason)
    of_task = next((f"{task.name}: {reason_text(task.reason)}" for task in pod.tasks if task.reason), "")
    return of_task or reason_text(pod.leaving)


def reason_lines(reason: Reason) -> list[str]:
    """Format a reason in full; for a placement also the agents per cause, the nearest hosts, and the way out.

    Only placements name hosts. The message of any other reason contains its counts.
    """
    lines = [reason_text(reason)]
    if reason.nearest:
        counts = sorted(reason.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        lines.append("agents: " + ", ".join(f"{count} {cause}" for cause, count in counts))
        lines.append("nearest: " + "; ".join(reason.nearest))
    if reason.changes:
        lines.append("would fit with: " + ", or ".join(reason.changes))
    return lines


def trouble_lines(view: JobView) -> list[str]:
    """Return everything that differs from the desired state of a job: each reason once, with its pods."""
    names_by_reason: dict[tuple[str, ...], list[str]] = {}
    for pod in view.pods:
        if pod.reason:
            names_by_reason.setdefault(tuple(reason_lines(pod.reason)), []).append(pod.pod)
        for task in pod.tasks:
            # A pod's own reason often quotes that of its program.
            if task.reason and reason_text(task.reason) not in reason_text(pod.reason):
                names_by_reason.setdefault(tuple(reason_lines(task.reason)), []).append(
                    f"{pod.pod} {task.name}"
                )
    own = view.summary.reason
    if own and not any(text[0] in reason_text(own) for text in names_by_reason):
        names_by_reason = {tuple(reason_lines(own)): [], **names_by_reason}
    lines = []
    for text, names in names_by_reason.items():
        lines.append(f"{_first_and_count(names)}: {text[0]}" if names else text[0])
        lines += [f"  {line}" for line in text[1:]]
    return lines


def event_lines(view: JobView, now_s: float, count: int) -> list[str]:
    """Return the last ``count`` events of a job, oldest first."""
    lines = []
    for event in view.events[-count:]:
        age = format_age(event.at_s, now_s) or "0s"
        lines.append(f"{age:>8} ago  {event.subject}  {event.kind}  {event.text}".rstrip())
    return lines


def _titles(resources: Iterable[Resource]) -> list[str]:
    return [resource.name.upper() for resource in resources]


def _first_and_count(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
