"""`galaxy job update` changes the limits of running programs, which go on to run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from galaxy.units import MIB
from tests.support.waiting import until

from .conftest import GALAXY, Cluster, cgroups_at, job_file

PG_BIN = next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "")
POSTGRES = f"""\
export PATH={PG_BIN}:$PATH PGDATA=/home/work/pg
[ -d $PGDATA ] || initdb -U galaxy -A trust --no-sync >/dev/null || exit 1
exec postgres -k /tmp -c listen_addresses= -c shared_buffers=16MB
"""
HOLD = "DO $$ DECLARE t text := repeat('x', 140 * 1024 * 1024); BEGIN PERFORM pg_sleep({seconds}); END $$"


def limit_of(cluster: Cluster, job: str) -> set[int]:
    """Return the memory limits of the job's tasks, as the kernel has them."""
    (root,) = cluster.cgroup_roots()
    names = ("memory.limit_in_bytes", "memory.max")
    files = [
        found
        for cgroup in cgroups_at(f"{root}/{job}-*/main")
        for name in names
        if (found := cgroup / name).exists()
    ]
    return {int(file.read_text()) for file in files}


def identities(cluster: Cluster, job: str) -> list[tuple[str, int, int, int]]:
    """Return what stays the same of a pod whose program goes on to run."""
    return [
        (pod.pod, pod.incarnation, pod.pid, int(pod.tasks[0].started_s or 0)) for pod in cluster.pods(job)
    ]


@pytest.mark.skipif(not PG_BIN or not shutil.which("psql"), reason="PostgreSQL is not installed here")
def test_memory_of_a_running_postgresql_goes_up_and_down_without_a_restart(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("pg")

    def job(memory: str) -> str:
        return str(
            job_file(
                tmp_path,
                "pg",
                task={"cpu": "500m", "memory": memory, "start": POSTGRES},
                pod={"workspace": {"path": "/home/work", "size": "256M"}},
            )
        )

    def sql(text: str) -> str:
        asked = ("exec", "pg", "--", "psql", "-h", "/tmp", "-U", "galaxy", "-At", "postgres", "-c", text)
        return cluster.run(*asked).stdout.strip()

    cluster.run("job", "run", job("128M"))
    start_time = "SELECT pg_postmaster_start_time()"
    began = until("PostgreSQL answers", lambda: _quietly(lambda: sql(start_time)), 60)
    before = identities(cluster, "pg")
    assert limit_of(cluster, "pg") == {128 * MIB}

    grown = cluster.run("job", "update", job("768M"))
    assert "pod.tasks.main.memory: 128 MiB -> 768 MiB: in place" in grown.stderr
    assert limit_of(cluster, "pg") == {768 * MIB}
    assert sql(HOLD.format(seconds=0)) == "DO", "140 MiB in one query, more than there was before"

    arguments = ["exec", "pg", "--", "psql", "-h", "/tmp", "-U", "galaxy", "postgres", "-c"]
    holder = subprocess.Popen(
        [*GALAXY, *arguments, HOLD.format(seconds=600)], env=cluster.environ, stdin=subprocess.DEVNULL
    )
    try:
        in_use = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until("a query that holds memory", lambda: sql(in_use) == "1", 30)
        cluster.run("job", "update", "--detach", job("128M"))
        shown = until("the reason", lambda: _resize_reason(cluster), 30)
        assert "task main uses" in shown and "more than its new memory limit of 128 MiB" in shown
        assert limit_of(cluster, "pg") == {768 * MIB}
    finally:
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        holder.wait(30)
    until("the lower limit", lambda: limit_of(cluster, "pg") == {128 * MIB}, 60)
    until("the job is settled", lambda: cluster.show("pg").settled, 60)

    assert sql(start_time) == began
    assert identities(cluster, "pg") == before
    assert _resize_reason(cluster) == ""


def test_limits_of_a_small_program_change_without_a_restart(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("small")
    cluster.run("job", "run", str(job_file(tmp_path, "small", task={"pids": 40})))
    before = identities(cluster, "small")
    for memory, pids in (("256M", 80), ("32M", 16)):
        path = job_file(tmp_path, "small", task={"memory": memory, "cpu": "300m", "pids": pids})
        cluster.run("job", "update", str(path))
        assert limit_of(cluster, "small") == {int(memory[:-1]) * MIB}
        (root,) = cluster.cgroup_roots()
        found = {
            int((cgroup / "pids.max").read_text())
            for cgroup in cgroups_at(f"{root}/small-*/main")
            if (cgroup / "pids.max").exists()
        }
        assert found == {pids}
    assert identities(cluster, "small") == before


def test_size_that_no_host_has_keeps_the_program_and_says_what_is_lacking(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("huge")
    cluster.run("job", "run", str(job_file(tmp_path, "huge")))
    before = identities(cluster, "huge")
    cluster.run("job", "update", "--detach", str(job_file(tmp_path, "huge", task={"memory": "900T"})))
    reason = until("the reason", lambda: _resize_reason(cluster, "huge"), 30)
    assert "lacks memory" in reason and "keeps its size" in reason
    cluster.run("job", "update", str(job_file(tmp_path, "huge")))
    assert identities(cluster, "huge") == before and _resize_reason(cluster, "huge") == ""


def _resize_reason(cluster: Cluster, job: str = "pg") -> str:
    reasons = [pod.reason for pod in cluster.pods(job) if pod.reason is not None]
    return reasons[0].message if reasons else ""


def _quietly(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except AssertionError:
        return ""
