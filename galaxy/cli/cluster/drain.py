"""``galaxy agent drain``, ``offline`` and ``online``: empty machines, and put them back into service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

import click

from galaxy.cli.cluster.agent_changes import reason_option
from galaxy.cli.cluster.host_arguments import file_option, hosts_argument, print_changed
from galaxy.cli.lazy import Action
from galaxy.cli.options import Duration, Target, cluster_options, output_options
from galaxy.cli.output import Output, one_line, print_err, print_out
from galaxy.cli.tables import reason_text
from galaxy.client import Galaxy
from galaxy.errors import DONE, FAILED, NOT_ALL_RUNNING, GalaxyError, NotFound, Unreachable, UsageError
from galaxy.model.api.drains import DEADLINE_S_MAX, DrainList, DrainPlan, DrainView, LeavingView
from galaxy.model.messages.container import Reason
from galaxy.units import counted, format_duration

POLL_S: Final = 1.0
JOBS_MAX: Final = 10
"""Jobs that AppMaster is asked about in one look, for what their pods wait for."""
PLACED_LOOKS: Final = 5
"""How often evicted pods without a place are looked at before the command ends."""
NAMED_MAX: Final = 5
DRAIN_EXAMPLES: Final = """\
  galaxy agent drain h1 --reason "new disk"      move everything away, each job at its own pace
  galaxy agent drain h1 h2 --deadline 1h         evict what is left after an hour
  galaxy agent drain h1 --dry-run                say what would happen
  galaxy agent drain h1 --detach                 do not wait for it
"""


@click.command(cls=Action, examples=DRAIN_EXAMPLES)
@hosts_argument
@file_option
@reason_option
@click.option(
    "--deadline", type=Duration(1.0, DEADLINE_S_MAX), metavar="TIME",
    help="Time after which what is left is evicted, without regard for the jobs' pace.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Evict everything now.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the hosts are empty.")
@output_options
@cluster_options
def drain(
    target: Target, output: Output, hosts: tuple[str, ...], reason: str, deadline: float | None, force: bool,
    dry_run: bool, detach: bool,
) -> int:  # fmt: skip
    """Move every container away from HOSTS, and place nothing new there. For operators.

    The pods of each job leave at the job's own `step` and `interval`, never below its least number of
    healthy pods; pods of batch jobs stay until they end. The command waits until the hosts are empty and
    says what it waits for; Ctrl-C ends the waiting, not the drain. `galaxy agent online` ends the drain.
    """
    return _drain(
        target, output, hosts, reason, deadline, force=force, dry_run=dry_run, detach=detach, offline=False
    )


@click.command(cls=Action, examples="  galaxy agent offline h1 --reason repair --deadline 30m\n")
@hosts_argument
@file_option
@reason_option
@click.option(
    "--deadline",
    type=Duration(1.0, DEADLINE_S_MAX),
    metavar="TIME",
    help="Time after which what is left is evicted.",
)
@click.option("--force", is_flag=True, help="Evict everything now.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the hosts are empty.")
@output_options
@cluster_options
def offline(
    target: Target, output: Output, hosts: tuple[str, ...], reason: str, deadline: float | None, force: bool,
    detach: bool,
) -> int:  # fmt: skip
    """Drain HOSTS and take them out of service. For operators.

    As `galaxy agent drain`; moreover, an offline host that is switched off is not missed: it does not
    count for safe mode. `galaxy agent online` undoes it.
    """
    return _drain(
        target, output, hosts, reason, deadline, force=force, dry_run=False, detach=detach, offline=True
    )


@click.command(cls=Action, examples="  galaxy agent online h1\n")
@hosts_argument
@file_option
@output_options
@cluster_options
def online(target: Target, output: Output, hosts: tuple[str, ...]) -> None:
    """End the drain of HOSTS: what is left there stays, and containers are placed there again."""
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        view = galaxy.online(hosts)
        cordoned = [host for host in view.agents if output.for_people and galaxy.agent(host).cordon]
    print_changed(output, view, "online", "online before")
    if cordoned:
        print_err(f"still cordoned: {', '.join(cordoned)}; galaxy agent uncordon {cordoned[0]}")


def _drain(
    target: Target, output: Output, hosts: tuple[str, ...], reason: str, deadline: float | None, *,
    force: bool, dry_run: bool, detach: bool, offline: bool,
) -> int:  # fmt: skip
    if force and deadline is not None:
        raise UsageError("--force evicts at once, so --deadline has no meaning")
    if dry_run:
        with target.open() as galaxy:
            plan = galaxy.plan_drain(hosts, evict=force)
        if not output.print_data(plan, [move.container for move in plan.moves]):
            _print_plan(output, plan)
        return DONE
    with target.open_to_change(quiet=not output.for_people) as galaxy:
        galaxy.drain(hosts, deadline_s=deadline or 0.0, force=force, offline=offline, reason=reason)
        if detach:
            views = galaxy.drains(hosts)
            if not output.print_data(views, [view.agent for view in views.drains]):
                for line in _lines(views, {} if force else _waits(galaxy, views)):
                    print_out(line)
                print_err(f"galaxy agent show {hosts[0]} shows it; galaxy agent online {hosts[0]} ends it")
            return DONE
        return _follow(galaxy, hosts, output)


def _print_plan(output: Output, plan: DrainPlan) -> None:
    if not plan.moves:
        print_err("no container is there")
        return
    rows = [
        [move.container, move.agent, move.to or "-", "" if move.to else reason_text(move.reason)]
        for move in plan.moves
    ]
    output.print_table(["CONTAINER", "FROM", "TO", "REASON"], rows)
    for line in _safe_mode_lines(plan.safe_mode):
        print_err(line)
    for short in plan.short:
        print_err(
            one_line(
                f"{short.job} would be short of {short.count} of {short.replica}: {reason_text(short.reason)}"
            )
        )


def _follow(galaxy: Galaxy, hosts: Sequence[str], output: Output) -> int:
    """Print what the drain waits for until all hosts are empty; return the exit code."""
    progress = _Progress(galaxy, hosts)
    try:
        while (code := progress.look()) is None:
            time.sleep(POLL_S)
        if code != DONE:
            return code
        short = progress.homeless()
    except KeyboardInterrupt:
        print_err(f"stopped waiting; the drain goes on: galaxy agent show {hosts[0]}")
        return NOT_ALL_RUNNING
    views = galaxy.drains(hosts)
    if not output.print_data(views, [view.agent for view in views.drains]):
        for view in views.drains:
            what = "offline" if view.drain and view.drain.offline else "drained"
            print_out(f"{view.agent} is {what}: no container is left")
    for line in short:
        print_err(line)
    return NOT_ALL_RUNNING if short else DONE


class _Progress:
    """What was printed of a drain, and which pods were on the hosts."""

    def __init__(self, galaxy: Galaxy, hosts: Sequence[str]) -> None:
        self._galaxy = galaxy
        self._hosts = hosts
        self._began_s = time.monotonic()
        self._told: set[str] = set()
        self._pods: dict[str, set[str]] = {}
        """By job, the pods that were on the hosts."""
        self._away = ""

    def look(self) -> int | None:
        """Print what has changed; return the exit code when the drain is over, None while it is not."""
        try:
            views = self._galaxy.drains(self._hosts)
        except NotFound as error:
            print_err(f"galaxy: {error.message}: it was removed while it was drained")
            return FAILED
        except Unreachable as error:
            if error.message != self._away:
                print_err(f"galaxy: {error.message}; still trying")
            self._away = error.message
            return None
        self._away = ""
        ended = [view.agent for view in views.drains if view.drain is None]
        if ended:
            print_err(f"galaxy: the drain of {', '.join(ended)} was ended by another command")
            print_err(f"  try: galaxy audit --target {ended[0]}")
            return FAILED
        for view in views.drains:
            for left in view.left:
                self._pods.setdefault(left.job, set()).add(left.container)
        for line in _lines(views, _waits(self._galaxy, views)):
            if line not in self._told:
                self._told.add(line)
                print_err(f"+{format_duration(int(time.monotonic() - self._began_s))} {line}")
        return DONE if all(view.drain is not None and view.drain.done_s for view in views.drains) else None

    def homeless(self) -> list[str]:
        """Return a line for each pod that was on the hosts and has no place, or whose state is not known."""
        lines: list[str] = []
        for attempt in range(PLACED_LOOKS):
            lines = [line for job in list(self._pods)[:JOBS_MAX] for line in self._homeless_of(job)]
            if not lines:
                return []
            if attempt < PLACED_LOOKS - 1:
                time.sleep(POLL_S)
        return lines

    def _homeless_of(self, job: str) -> list[str]:
        try:
            pods = self._galaxy.job(job).pods
        except NotFound:
            return []  # It was removed meanwhile.
        except GalaxyError as error:
            return [one_line(f"cannot say how {job} is: {error.message}")]
        waiting = [pod for pod in pods if pod.pod in self._pods[job] and pod.state == "pending"]
        return [
            one_line(f"{pod.pod} has no place: {reason_text(pod.reason) or 'it is not placed yet'}")
            for pod in waiting
        ]


def _waits(galaxy: Galaxy, views: DrainList) -> dict[str, str]:
    """Return, by pod, what AppMaster says it waits for; empty where AppMaster does not answer."""
    waits: dict[str, str] = {}
    jobs = dict.fromkeys(left.job for view in views.drains for left in view.left)
    for job in list(jobs)[:JOBS_MAX]:
        try:
            view = galaxy.job(job)
        except Unreachable as error:
            return {"": f"nothing leaves while AppMaster is away: {error.message}"}
        except GalaxyError:
            continue
        waits.update((pod.pod, pod.leaving.message) for pod in view.pods if pod.leaving is not None)
    return waits


def _lines(views: DrainList, waits: dict[str, str]) -> Iterator[str]:
    """Yield what each host waits for, one line for each of the first containers."""
    if "" in waits:
        yield one_line(waits[""])
    yield from _safe_mode_lines(views.safe_mode)
    for view in views.drains:
        yield f"{view.agent}: {_left_text(view)}"
        for left in view.left[:NAMED_MAX]:
            yield one_line(f"{view.agent}: {left.container} {_why(left, waits)}")


def _safe_mode_lines(reason: Reason | None) -> list[str]:
    """Return the line that says why nothing leaves; none in the moments after a ResMan begins to lead."""
    if reason is None or reason.code == "start":
        return []
    return [one_line(f"nothing leaves: {reason.message}")]


def _left_text(view: DrainView) -> str:
    if view.drain is None or not view.containers:
        return "no container is left"
    return f"{counted(view.containers, 'container')} left"


def _why(left: LeavingView, waits: dict[str, str]) -> str:
    if left.state == "destroying":
        return "is being destroyed"
    said = waits.get(left.container)
    if said:
        return said.partition("; ")[2] or said
    if left.to:
        return f"has a place on {left.to}"
    return reason_text(left.reason) or "leaves"
