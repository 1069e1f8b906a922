"""Stop a local cluster: through its supervisor, or part by part if that has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from galaxy.cli.local import leftovers
from galaxy.cli.local.layout import Layout, lock_folder, read_plan
from galaxy.cli.local.leftovers import Leftovers
from galaxy.cli.local.supervisor import PartChanged
from galaxy.client.cluster_file import ClusterFile, read_cluster, remove_cluster
from galaxy.container.kernel import uid_ranges
from galaxy.container.launcher.protocol import Destroyed, LauncherLost
from galaxy.container.runtime import InitProcess, Runtime
from galaxy.errors import GalaxyError

PROGRAMS_GRACE_S: Final = 3.0
"""How long programs may run after SIGTERM when their cluster stops."""
DESTROY_S: Final = 15.0
PARTS_GRACE_S: Final = 4.0
SERVER_GRACE_S: Final = 10.0
SUPERVISOR_S: Final = 60.0


def stop_cluster(layout: Layout, report: Callable[[PartChanged], None]) -> tuple[bool, Leftovers]:
    """Stop the cluster of a folder from outside: through its supervisor, or part by part without one.

    Returns whether anything ran, and what could not be removed.

    Raises:
        GalaxyError: another ``galaxy up`` or ``galaxy down`` works in the folder.
    """
    cluster, plan = read_cluster(layout.root), read_plan(layout)
    roots = [agent.cgroup_root for agent in plan.agents] if plan else []
    if cluster is None and not leftovers.find(layout.root, roots):
        return False, Leftovers()
    asked = cluster is not None and _stop_supervisor(cluster)
    lock = lock_folder(layout)
    if lock is None:
        raise GalaxyError(f"another `galaxy up` or `galaxy down` is running in {layout.root}")
    try:
        if not asked:
            _log_stop(layout)
        left = _stop_parts(layout, cluster, roots, report)
    finally:
        lock.release()
    if not left:
        remove_cluster(layout.root)
    return True, left


def stop_agents(
    layout: Layout, cgroup_roots: Sequence[str], *, mode: str, report: Callable[[PartChanged], None]
) -> Leftovers:
    """Stop every container and launcher, and return what could not be removed.

    The agents must have ended before. PID 1 of each container gets SIGTERM, then the launcher
    destroys the container. Anything that is left after that is killed and removed.
    """
    states = sorted(path for path in layout.agents.glob("*") if (path / "agent.db").is_file())
    report(PartChanged(part="containers", state="stopping"))
    for state, root in zip(states, _cgroup_roots_of(layout, states, cgroup_roots), strict=True):
        # A launcher that fails here is killed by leftovers.remove below.
        with contextlib.suppress(OSError, GalaxyError):
            if any((state / name).is_dir() and any((state / name).iterdir()) for name in ("c", "garbage")):
                _stop_launcher(state, root, mode)
    left = leftovers.remove(layout.root, cgroup_roots)
    with contextlib.suppress(OSError, GalaxyError):
        uid_ranges.drop_unused_claims()
    report(PartChanged(part="containers", state="gone"))
    return left


def stop_stale_parts(layout: Layout) -> None:
    """Stop the processes that an earlier supervisor left running; containers keep running.

    The caller holds the folder's lock and starts new processes in place of these.
    """
    cluster = read_cluster(layout.root)
    refs = (
        [ref for ref in cluster.processes if ref.pid != os.getpid() and ref.is_running()] if cluster else []
    )
    _terminate([ref.pid for ref in refs if ref.name != "server"], grace_s=PARTS_GRACE_S)
    _terminate([ref.pid for ref in refs if ref.name == "server"], grace_s=SERVER_GRACE_S)


def _stop_supervisor(cluster: ClusterFile) -> bool:
    """Ask a running supervisor to stop its cluster; kill it when it does not. Return whether one ran."""
    supervisor = cluster.supervisor()
    if supervisor is None or not supervisor.is_running():
        return False
    _terminate([supervisor.pid], grace_s=SUPERVISOR_S)
    return True


def _log_stop(layout: Layout) -> None:
    """Write to the supervisor's log that this process stops what is left of the cluster."""
    cause = f"galaxy down, process {os.getpid()} of uid {os.getuid()}"
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} event=cluster.stopping-parts cause={cause!r}\n"
    with contextlib.suppress(OSError):
        log = layout.logs / "supervisor.log"
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
            file.write(line)


def _stop_parts(
    layout: Layout, cluster: ClusterFile | None, roots: Sequence[str], report: Callable[[PartChanged], None]
) -> Leftovers:
    """Stop what a supervisor that has ended left behind, the server last."""
    refs = [ref for ref in cluster.processes if ref.is_running()] if cluster else []
    parts = [ref for ref in refs if ref.name != "server"]
    for ref in parts:
        report(PartChanged(part=ref.name, state="stopping"))
    _terminate([ref.pid for ref in parts], grace_s=PARTS_GRACE_S)
    left = Leftovers()
    if refs or leftovers.find(layout.root, roots):
        left = stop_agents(layout, roots, mode=cluster.mode if cluster else "full", report=report)
    _terminate([ref.pid for ref in refs if ref.name == "server"], grace_s=SERVER_GRACE_S)
    return left


def _terminate(pids: Sequence[int], *, grace_s: float) -> None:
    """Send SIGTERM, then SIGKILL after ``grace_s``."""
    leftovers.kill(pids, signal.SIGTERM)
    if not leftovers.await_end(pids, grace_s):
        leftovers.kill(pids, signal.SIGKILL)
        leftovers.await_end(pids, 5.0)


def _cgroup_roots_of(layout: Layout, states: Sequence[Path], cgroup_roots: Sequence[str]) -> list[str]:
    """Return the cgroup root of each agent, given their state directories."""
    plan = read_plan(layout)
    by_name = {agent.name: agent.cgroup_root for agent in plan.agents} if plan else {}
    return [by_name.get(state.name, cgroup_roots[0] if cgroup_roots else "galaxy") for state in states]


def _stop_launcher(state: Path, cgroup_root: str, mode: str) -> None:
    """Stop one launcher's containers, then the launcher; give up after the grace periods."""
    runtime = Runtime(state, cgroup_root=cgroup_root, mode=mode)
    runtime.start()
    try:
        running = runtime.running()
        leftovers.kill([one.pid for one in running], signal.SIGTERM)
        leftovers.await_end([one.pid for one in running], PROGRAMS_GRACE_S)
        _destroy(runtime, running)
        runtime.stop_launcher()
    finally:
        runtime.close()


def _destroy(runtime: Runtime, running: Sequence[InitProcess]) -> None:
    waiting = {(one.container, one.incarnation) for one in running}
    for container, incarnation in waiting:
        runtime.destroy(container, incarnation)
    deadline = time.monotonic() + DESTROY_S
    while waiting and (left := deadline - time.monotonic()) > 0:
        if not leftovers.readable(runtime.fileno(), left):
            return
        for event in runtime.events():
            if isinstance(event, Destroyed):
                waiting.discard((event.container, event.incarnation))
            elif isinstance(event, LauncherLost):
                return
