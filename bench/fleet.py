"""Containers per second through the whole path, with simulated agents on a real Redis.

``python bench/fleet.py [--hosts N --jobs J --replicas R]``: a real Redis, a real ``galaxy resman`` and
``galaxy appmaster``, and the agents of N hosts in one process (``bench/fleet_agents.py``). The SDK submits
J jobs of R pods at once, and jobs of one pod into that burst, one after another. These have a host with a
process of its own: on a real cluster, no host waits until others have created theirs. A pod counts as running
when AppMaster has committed that its program runs. The peer, in the same run and on a Redis of its own: a
bare Celery worker of two processes that is sent one empty task for each container, 5,000 at most. It places,
stores and reports nothing, so it is the lower bound of the transport alone.

CPU is utime + stime of a process from the first submit until every job runs, less what the process took at
rest just before, by container. On a busy machine compare that; it is steadier than the times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from fleet_agents import MARKS, SMALL

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # For tests.support.

from galaxy.client import Galaxy
from galaxy.model.base import decode
from galaxy.model.messages import names
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.job import JobRecord, JobState
from galaxy.nexus import keys
from tests.support.redis_server import RedisServer, running_server

HOSTS, JOBS, REPLICAS = 1_000, 20, 1_000
REST_S = 5.0
TIMEOUT_S = 600.0
SAMPLE_S = 0.05
QUERIES = 10
KINDS = ("container.placed", "pod.placed", "container.ready", "pod.running")
"""Events of a pod whose times are printed. A step that places many containers traces only their number."""
STAGES = (
    "accepted",
    "container.placed",
    "create",
    "ready",
    "container.ready",
    "deploy",
    "run",
    "pod.running",
    "seen",
)
"""What a one-pod job waits for: the client, ResMan, its host (ordered, created), ResMan, its host (ordered,
runs), AppMaster, the client."""
PEER_TASKS_MAX = 5_000
PEER_QUEUE, PEER_TASK, PEER_DONE = "bench-peer", "bench.nothing", "bench-peer-done"
AIM_PER_S, AIM_SMALL_S = 1_500.0, 1.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
GALAXY = [sys.executable, "-P", "-m", "galaxy.cli.main"]
QUEUES = [*names.leader_queues(names.RESMAN), *names.leader_queues(names.APPMASTER)]
SMALL_HOST = ["--hosts", "1", "--prefix", SMALL, "--pool", SMALL]
"""The host of the one-pod jobs. It has a process of its own, so that they wait for the leaders, not for one
process to simulate the work that the burst causes on a thousand hosts."""
MAILBOXES = [f"{role} mailboxes" for role in names.PARTS]
"""Agents with a report that the leader has not taken."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hosts", type=int, default=HOSTS)
    options.add_argument("--jobs", type=int, default=JOBS, help="jobs that are submitted at once")
    options.add_argument("--replicas", type=int, default=REPLICAS, help="pods of each of them")
    options.add_argument("--profile", metavar="FOLDER", help="write profiles of both leaders to FOLDER")
    options.add_argument("--logs", metavar="FOLDER", help="keep the logs of the processes there")
    options.add_argument(
        "--nice", type=int, default=0, help="niceness of all parts, as root below 0: for a busy machine"
    )
    options.add_argument("--no-peer", action="store_true", help="leave the peer out")
    options.add_argument("--peer-worker", metavar="URL", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.peer_worker:
        run_peer(given.peer_worker)
        return
    if given.nice:
        os.nice(given.nice)
    containers = given.jobs * given.replicas
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="galaxy-fleet-") as folder, running_server() as server:
        logs = Path(given.logs or folder)
        logs.mkdir(parents=True, exist_ok=True)
        with fleet(server, given.hosts, logs, given.profile) as processes:
            ours = measure(server, processes, given.jobs, given.replicas)
    report(given.hosts, containers, ours)
    peer = {} if given.no_peer else measure_peer(min(containers, PEER_TASKS_MAX))
    if peer:
        print(f"  bare Celery    {peer['per_s']:8.0f} tasks/s, CPU ms each {peer['cpu_ms']}")
    sizes = {"hosts": given.hosts, "jobs": given.jobs, "replicas": given.replicas}
    aims = {"per_s": AIM_PER_S, "small_s": AIM_SMALL_S}
    loads = [round(load, 2), round(os.getloadavg()[0], 2)]
    print(json.dumps({"bench": "fleet", **sizes, "load": loads, "aim": aims, "ours": ours, "peer": peer}))


def report(hosts: int, containers: int, ours: dict[str, Any]) -> None:
    print(f"{containers} containers on {hosts} hosts")
    print(f"  containers/s   {ours['per_s']:8.0f}   all running after {ours['all_s']:.1f} s")
    print(f"  first, median  {ours['first_s']:8.2f}   {ours['median_s']:.2f} s")
    for kind, times in ours["seen_s"].items():
        print(f"  {kind:<15}" + "".join(f"{at_s:8.2f}" for at_s in times) + "   s: first, quarters, last")
    small = ours["small"]
    print(f"  one-pod jobs   {small['median_s']:8.2f}   worst {small['worst_s']:.2f} s of {small['count']}")
    for name, (median_s, worst_s) in small["stages_s"].items():
        print(f"    {name:<18}{median_s:6.3f}   worst {worst_s:.3f}")
    print(f"  accepted       {ours['accepted_median_s']:8.3f}   worst {ours['accepted_worst_s']:.3f} s")
    print(f"  CPU ms each    {ours['cpu_ms']}   at rest, share of a core: {ours['rest_share']}")
    print(f"  waits for CPU  {ours['starved_share']}   share of the time; on a machine at rest, near 0")
    print(f"  Redis, each    {ours['redis_memory_bytes']} bytes of memory, "
          f"{ours['redis_input_bytes']} in, {ours['redis_output_bytes']} out, "
          f"{ours['redis_commands']} commands")  # fmt: skip
    print(f"  longest queue  {ours['queues_max']}")
    print(f"  queries        {ours['queries_ms']} ms of AppMaster's CPU, {ours['queries_s']} s")


# ---- the cluster


@contextmanager
def fleet(server: RedisServer, hosts: int, logs: Path, profile: str | None) -> Iterator[dict[str, int]]:
    """Run leaders and agents; yield their pids once every agent has joined."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for role in (names.RESMAN, names.APPMASTER):
            command = [*GALAXY, role, "--redis", server.url, "--name", "bench"]
            if profile:
                os.makedirs(profile, exist_ok=True)
                script = [str(Path(__file__).with_name("fleet_profile.py")), f"{profile}/{role}.prof"]
                command = [sys.executable, *script, *command[len(GALAXY) :]]
            started[role] = start(command, logs / f"{role}.log")
        agents = [sys.executable, str(Path(__file__).with_name("fleet_agents.py")), "--redis", server.url]
        for name, options in {"agents": ["--hosts", str(hosts)], "small host": SMALL_HOST}.items():
            started[name] = start([*agents, *options], logs / f"{name}.log")
        client = redis.Redis.from_url(server.url)
        until(
            lambda: client.hlen(keys.table(names.RESMAN, "agents")) == hosts + 1,
            "every agent has joined",
            TIMEOUT_S,
        )
        keep_niceness(process.pid for process in started.values())
        yield {name: process.pid for name, process in started.items()} | {
            "redis": server.pid,
            "observers": os.getpid(),
        }
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(30)


def keep_niceness(pids: Iterable[int]) -> None:
    """Give processes the niceness of this one: leaders set their own to 0 when they start."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
    environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with open(log, "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ,
            start_new_session=True,
        )  # fmt: skip


def measure(server: RedisServer, processes: dict[str, int], jobs: int, replicas: int) -> dict[str, Any]:
    """Submit all jobs; return every figure once they run."""
    client = redis.Redis.from_url(server.url)
    with Galaxy(server.url, timeout_s=60.0) as galaxy:
        warm_up(galaxy)
        time.sleep(2.0)  # What the joining agents caused is over: the figures at rest are of an idle fleet.
        before = cpu_s(processes)
        time.sleep(REST_S)
        rest = {name: (now_s - before[name]) / REST_S for name, now_s in cpu_s(processes).items()}
        follower, sampler = Follower(server.url), Sampler(server.url)
        facts = client.info()
        began, starved, began_s = cpu_s(processes), starved_s(processes), time.time()
        accepted: list[float] = []
        ids = []
        small = SmallJobs(server.url)
        for number in range(jobs):
            asked_s = time.time()
            ids.append(galaxy.submit(job(f"burst{number}", replicas)).job)
            accepted.append(time.time() - asked_s)
            if number == 0:
                small.start()
        until(lambda: all_run(client, ids), "every job runs", TIMEOUT_S)
        all_s = time.time() - began_s
        spent = {name: now_s - began[name] for name, now_s in cpu_s(processes).items()}
        starved = {name: now_s - starved[name] for name, now_s in starved_s(processes).items()}
        waited_s = time.time() - began_s
        waits = small.stop(client, follower)
        queues_max = sampler.stop()
        after = client.info()
        bursts = tuple(f"{one}." for one in ids)
        seen = {
            kind: sorted(at_s - began_s for pod, at_s in times.items() if pod.startswith(bursts))
            for kind, times in follower.seen.items()
        }
        running = seen["pod.running"]
        follower.stop()
        queries_ms, queries_s = queries(galaxy, processes, rest)
    count = jobs * replicas
    extra = len(waits)

    def each(name: str) -> int:
        return round((after[name] - facts[name]) / (count + extra))

    return {
        "per_s": round(count / all_s, 1),
        "all_s": round(all_s, 2),
        "seen": len(running),
        "first_s": round(running[0], 3),
        "median_s": round(statistics.median(running), 3),
        "seen_s": {kind: quartiles(times) for kind, times in seen.items()},
        "small": {
            "count": extra,
            "median_s": round(statistics.median(waits), 3),
            "worst_s": round(max(waits), 3),
            "stages_s": small.stages(),
        },
        "accepted_median_s": round(statistics.median(accepted), 3),
        "accepted_worst_s": round(max(accepted), 3),
        "cpu_ms": {
            name: round(max(0.0, spent_s - rest[name] * waited_s) * 1000 / (count + extra), 3)
            for name, spent_s in spent.items()
        },
        "cpu_s": {name: round(spent_s, 1) for name, spent_s in spent.items()},
        "starved_share": {name: round(waits_s / all_s, 2) for name, waits_s in starved.items()},
        "rest_share": {name: round(share, 3) for name, share in rest.items()},
        "queues_max": queues_max,
        "redis_memory_bytes": each("used_memory"),
        "redis_input_bytes": each("total_net_input_bytes"),
        "redis_output_bytes": each("total_net_output_bytes"),
        "redis_commands": each("total_commands_processed"),
        "queries_ms": queries_ms,
        "queries_s": queries_s,
    }  # fmt: skip


def quartiles(times: list[float]) -> list[float]:
    """Return the first, the quarter, the median, the three quarters and the last of sorted times."""
    return [round(times[int(share * (len(times) - 1))], 2) for share in (0, 0.25, 0.5, 0.75, 1) if times]


def all_run(client: redis.Redis, ids: list[str]) -> bool:
    """Return whether AppMaster has committed that every one of these jobs runs."""
    rows: Any = client.hmget(keys.table(names.APPMASTER, "jobs"), ids)
    return all(row is not None and decode(row, JobRecord).state is JobState.RUNNING for row in rows)


def warm_up(galaxy: Galaxy) -> None:
    """Run and remove one job, so that everything was imported and connected."""
    found = galaxy.submit(job("warm-up", 1)).job
    galaxy.wait(found, timeout_s=30.0, until=lambda view: view.summary.running == 1)
    galaxy.remove(found)
    galaxy.wait(found, timeout_s=30.0, until=lambda view: view.summary.state == "removed")


def queries(
    galaxy: Galaxy, processes: dict[str, int], rest: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by query, the milliseconds of AppMaster's CPU and the seconds until its answer."""
    time.sleep(2.0)  # The burst's last messages are handled.
    asks: dict[str, Callable[[], object]] = {
        "status": galaxy.status, "agent list": galaxy.agents, "agent show": lambda: galaxy.agent("h1"),
        "job list": galaxy.jobs, "audit": galaxy.audit, "users": galaxy.users, "secrets": galaxy.secrets,
    }  # fmt: skip
    cpu, waits = {}, {}
    for name, ask in asks.items():
        ask()
        before_s, began_s = cpu_s(processes)[names.APPMASTER], time.time()
        for _ in range(QUERIES):
            ask()
        took_s = time.time() - began_s
        spent_s = cpu_s(processes)[names.APPMASTER] - before_s - rest[names.APPMASTER] * took_s
        cpu[name] = round(max(0.0, spent_s) * 1000 / QUERIES, 2)
        waits[name] = round(took_s / QUERIES, 4)
    return cpu, waits


def job(name: str, replicas: int, *, pool: str = "main") -> dict[str, Any]:
    task = {"cpu": "10m", "memory": "16M", "start": "serve"}
    deploy = {"replica": replicas, "stop_timeout": 1, "drain": 0, "pools": [pool]}
    return {"name": name, "deploy": deploy, "pod": {"workspace": "16M", "tasks": [task]}}


def cpu_s(processes: dict[str, int]) -> dict[str, float]:
    """Return the CPU seconds that each process has taken."""
    found = {}
    for name, pid in processes.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) * TICK_S
    return found


def starved_s(processes: dict[str, int]) -> dict[str, float]:
    """Return the seconds that the threads of each process were ready to run and waited for a core."""
    return {
        name: sum(int(one.read_text().split()[1]) for one in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        / 1e9
        for name, pid in processes.items()
    }


def until(is_true: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > end_s:
            raise SystemExit(f"not after {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


# ---- observers, each a thread with a connection of its own


class Follower:
    """Follows the trace, and records when containers and pods are seen in each state, in Unix seconds.

    It misses events if a leader commits more of them at once than the trace keeps.
    """

    def __init__(self, url: str) -> None:
        self.seen: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
        self._client = redis.Redis.from_url(url)
        newest: Any = self._client.xrevrange(keys.TRACE, count=1)
        self._after = newest[0][0] if newest else b"0"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            found: Any = self._client.xread({keys.TRACE: self._after}, count=5000, block=200)
            now_s = time.time()
            for name, fields in found[0][1] if found else ():
                self._after = name
                event = decode(fields[b"event"], TraceEvent)
                if event.kind in self.seen:
                    self.seen[event.kind].setdefault(event.subject, now_s)


class Sampler:
    """Samples the lengths of the leaders' queues."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._longest: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the most messages that waited in each queue."""
        self._stopping.set()
        self._thread.join(10)
        return dict(self._longest)

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            pipe = self._client.pipeline(transaction=False)
            for queue in QUEUES:
                pipe.llen(queue)
            for role in names.PARTS:
                pipe.zcard(keys.reporting(role))
            for queue, length in zip([*QUEUES, *MAILBOXES], pipe.execute(), strict=True):
                self._longest[queue] = max(self._longest[queue], length)


class SmallJobs:
    """Submits jobs of one pod, one after another, and measures each from submit to running."""

    def __init__(self, url: str) -> None:
        self._galaxy = Galaxy(url, timeout_s=60.0)
        self._times: list[tuple[str, float, float, float]] = []
        """By job: when it was submitted, accepted, and seen to run."""
        self._stages: list[dict[str, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, client: redis.Redis, follower: Follower) -> list[float]:
        """Return the seconds that each job took."""
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        self._galaxy.close()
        marks: Any = client.hgetall(MARKS)
        for job_id, began_s, accepted_s, seen_s in self._times:
            pod = f"{job_id}.0"
            at_s = {"accepted": accepted_s, "seen": seen_s}
            at_s |= {kind: times[pod] for kind, times in follower.seen.items() if pod in times}
            names = {name: f"{pod} {name}".encode() for name in STAGES}
            at_s |= {name: float(marks[mark]) for name, mark in names.items() if mark in marks}
            self._stages.append(durations(began_s, at_s))
        return [seen_s - began_s for _, began_s, _, seen_s in self._times]

    def stages(self) -> dict[str, tuple[float, float]]:
        """Return the median and the worst seconds of each stage."""
        found = {name: [one[name] for one in self._stages if name in one] for name in STAGES}
        return {
            name: (round(statistics.median(times), 3), round(max(times), 3))
            for name, times in found.items()
            if times
        }

    def _run(self) -> None:
        for number in itertools.count():
            began_s = time.time()
            found = self._galaxy.submit(job(f"{SMALL}{number}", 1, pool=SMALL)).job
            accepted_s = time.time()
            self._galaxy.wait(found, timeout_s=TIMEOUT_S, until=lambda view: view.summary.running == 1)
            self._times.append((found, began_s, accepted_s, time.time()))
            if self._stopping.wait(0.2):
                return


def durations(began_s: float, at_s: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each stage, from the end of the last one that is known."""
    found = {}
    for name in STAGES:
        if name in at_s:
            found[name] = max(0.0, at_s[name] - began_s)
            began_s = max(began_s, at_s[name])
    return found


# ---- the peer


def measure_peer(count: int) -> dict[str, Any]:
    """Send ``count`` empty tasks to a bare Celery worker; return tasks per second and CPU by task."""
    with running_server() as server:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--peer-worker", server.url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        client = redis.Redis.from_url(server.url)
        app = peer_app(server.url)

        def done() -> int:
            found: Any = client.get(PEER_DONE)
            return int(found or 0)

        try:
            app.send_task(PEER_TASK, queue=PEER_QUEUE)
            until(lambda: done() == 1, "the peer's worker has started")
            family = {f"worker{number}": pid for number, pid in enumerate(family_of(worker.pid))}
            processes = {**family, "redis": server.pid}
            before, began_s = cpu_s(processes), time.time()
            with app.producer_pool.acquire(block=True) as producer:
                for _ in range(count):
                    app.send_task(PEER_TASK, queue=PEER_QUEUE, producer=producer)
            until(lambda: done() == count + 1, "the peer has done every task", TIMEOUT_S)
            took_s = time.time() - began_s
            spent = {name: now_s - before[name] for name, now_s in cpu_s(processes).items()}
        finally:
            worker.terminate()
            worker.wait(30)
    worker_s = sum(spent_s for name, spent_s in spent.items() if name != "redis")
    cpu = {"worker": round(worker_s * 1000 / count, 3), "redis": round(spent["redis"] * 1000 / count, 3)}
    return {"per_s": round(count / took_s, 1), "cpu_ms": cpu}


def family_of(pid: int) -> list[int]:
    """Return a process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def peer_app(url: str) -> Celery:
    app = Celery("peer", broker=url)
    app.conf.update(
        task_default_queue=PEER_QUEUE, worker_send_task_events=False, task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )  # fmt: skip
    return app


def run_peer(url: str) -> None:
    app = peer_app(url)
    client = redis.Redis.from_url(url)

    @app.task(name=PEER_TASK)  # type: ignore[untyped-decorator]
    def nothing() -> None:
        client.incr(PEER_DONE)

    app.worker_main(
        ["worker", "-P", "prefork", "-c", "2", "-Q", PEER_QUEUE, "--without-gossip", "--without-mingle"]
    )


if __name__ == "__main__":
    main()
