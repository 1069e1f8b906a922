"""Programs, agents, leaders and servers are killed: other programs keep running, and nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from galaxy.nexus.presence import LEASE_S
from tests.support.waiting import until

from .conftest import GALAXY, Cluster, hello_job, job_file
from .test_service import containers, fetch


def programs(pod: Any) -> list[int]:
    """Return the host's pids of a pod's programs."""
    pid = pod.pid
    return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def process_state(pid: int) -> str:
    """Return the letter of a process's state (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_killed_program_is_restarted_with_reason_and_count(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("killed")
    cluster.run("job", "run", str(hello_job(tmp_path, "killed", "1.0.0", replica=1)))
    before = cluster.pods("killed")
    os.kill(programs(before[0])[0], signal.SIGKILL)
    pod = until(
        "restarted and healthy",
        lambda: [p for p in cluster.pods("killed") if p.restarts == 1 and p.healthy],
    )[0]
    assert pod.tasks[0].last_exit.signal == 9
    assert containers([pod]) == containers(before)
    shown = cluster.run("job", "show", "killed").stdout
    assert "killed by signal 9" in shown
    assert fetch(until("its endpoint", lambda: cluster.endpoints("killed"))[0])


def test_killed_agent_leaves_programs_running_and_its_successor_adopts_them(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("orphan")
    cluster.run("job", "run", str(hello_job(tmp_path, "orphan", "1.0.0", replica=2)))
    before, ran = cluster.pods("orphan"), [programs(pod) for pod in cluster.pods("orphan")]
    agent = cluster.pid("agent")
    os.kill(agent, signal.SIGKILL)
    assert [programs(pod) for pod in before] == ran
    until("another agent process", lambda: cluster.pid("agent") not in (0, agent))
    until("the agent is alive", lambda: cluster.agents()[0].state == "alive")
    os.kill(ran[0][0], signal.SIGKILL)
    until("a restart that the new agent reports", lambda: any(p.restarts for p in cluster.pods("orphan")))
    assert containers(cluster.pods("orphan")) == containers(before)
    assert programs(before[1]) == ran[1], "the other program was restarted"


@pytest.mark.parametrize("part", ["resman", "appmaster", "server"])
def test_killed_leader_or_server_leaves_programs_running_and_new_jobs_are_accepted(
    part: str, cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    first, second = f"before-{part}", f"after-{part}"
    jobs(first)
    jobs(second)
    cluster.run("job", "run", str(job_file(tmp_path, first)))
    before = cluster.pods(first)
    ran = programs(before[0])
    old = cluster.pid(part)
    os.kill(old, signal.SIGKILL)
    until("it is restarted", lambda: cluster.pid(part) not in (0, old))
    cluster.await_answers()
    cluster.run("job", "run", str(job_file(tmp_path, second)))
    assert programs(before[0]) == ran
    assert containers(cluster.pods(first)) == containers(before)


def test_finished_job_is_not_run_again_after_a_restart_of_any_part(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    own.up("--no-web")
    mark = "echo ran-once"
    path = job_file(tmp_path, "once", type="batch", task={"start": mark})
    own.run("job", "run", "--wait", str(path))

    def ran() -> int:
        logs = list((own.folder / "agent").glob("*/logs/once-*/*.stdout*"))
        return sum(log.read_text().count("ran-once") for log in logs)

    assert ran() == 1
    for part in ("agent", "resman", "appmaster", "server"):
        old = own.pid(part)
        os.kill(old, signal.SIGKILL)
        until(f"{part} again", lambda part=part, old=old: own.pid(part) not in (0, old))
        own.await_answers()
    other = job_file(tmp_path, "other", type="batch", task={"start": "true"})
    own.run("job", "run", "--wait", str(other))
    assert ran() == 1
    own.down()
    own.up("--no-web")
    own.run("job", "run", "--wait", str(job_file(tmp_path, "third", type="batch", task={"start": "true"})))
    assert ran() == 1
    assert own.show("once").summary.state == "finished"
    own.down()


def test_agent_that_is_stopped_says_goodbye_and_is_back_when_it_starts(cluster: Cluster) -> None:
    os.kill(cluster.pid("agent"), signal.SIGTERM)
    # Without a goodbye it would be suspect 10 s after its last heartbeat.
    until("the host is suspect", lambda: cluster.agents()[0].state == "suspect", 7.0)
    until("the host is back", lambda: cluster.agents()[0].state == "alive", 60.0)


def test_exec_and_its_suspended_client_go_on_after_redis_was_away(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("counter")
    cluster.run(
        "job", "run", str(job_file(tmp_path, "counter", task={"start": "exec sleep 1000", "cpu": "10m"}))
    )
    count = "i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7"
    process = subprocess.Popen(
        [*GALAXY, "exec", "counter", "--", "sh", "-c", count],
        env=cluster.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(10)]
        server = cluster.pid("server")
        os.kill(server, signal.SIGKILL)
        until("another server", lambda: cluster.pid("server") not in (0, server))
        lines += [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGTSTP)
        until("the client is stopped", lambda: process_state(process.pid) == "T")
        redis_client = redis.Redis.from_url(cluster.admin_url())
        leases = [redis_client.ttl(name) for name in redis_client.keys("galaxy:session:*:client")]
        redis_client.close()
        assert max(leases) > LEASE_S
        process.send_signal(signal.SIGCONT)
        lines += process.stdout.readlines()
        assert process.wait(30) == 7
    finally:
        process.kill()
        process.wait()
    assert lines == [f"{number + 1}\n" for number in range(80)]


def test_followed_log_goes_on_after_its_agent_was_stopped_and_killed(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("talker")
    start = "i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i; sleep 0.2; done; echo end"
    path = job_file(tmp_path, "talker", type="batch", task={"start": start, "cpu": "50m"})
    cluster.run("job", "run", "--detach", str(path))
    follower = subprocess.Popen(
        [*GALAXY, "logs", "-f", "talker"],
        env=cluster.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert follower.stdout is not None
    try:
        lines = [follower.stdout.readline() for _ in range(10)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            agent = cluster.pid("agent")
            os.kill(agent, number)
            until("another agent", lambda agent=agent: cluster.pid("agent") not in (0, agent))
            until("the agent is alive", lambda: cluster.agents()[0].state == "alive", 60)
            written = cluster.run("logs", "talker", "--tail", "1").stdout
            while lines[-1] != written:
                lines.append(follower.stdout.readline())
                assert lines[-1], lines
        cluster.run("exec", "talker", "--", "touch", "stop")
        lines += follower.stdout.readlines()
        assert follower.wait(60) == 0
    finally:
        follower.kill()
        follower.wait()
    lines = [line for line in lines if not line.startswith("waiting for")]
    assert lines == [*(f"{number + 1}\n" for number in range(len(lines) - 1)), "end\n"]
