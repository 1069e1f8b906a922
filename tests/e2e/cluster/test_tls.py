"""A cluster whose every connection to Redis uses TLS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tls import NEEDED, running_tls_server
from tests.support.waiting import until

from .conftest import Cluster, fetched, job_file


@pytest.mark.skipif(not NEEDED, reason="needs openssl and a server with TLS")
def test_cluster_over_tls_runs_jobs_and_flower_shows_its_workers_and_queues(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster()
    with running_tls_server() as tls:
        cluster.up("--redis", tls.url())
        cluster.run("job", "run", str(job_file(tmp_path, "quiet")))
        assert cluster.run("exec", "quiet", "--", "echo", "hi").stdout == "hi\n"
        flower = cluster.file()["flower"]

        def online() -> int:
            rows = json.loads(fetched(f"{flower}workers?json=1") or '{"data": []}')["data"]
            return len([row for row in rows if row["status"]])

        until("Flower shows all workers online", lambda: online() == 3)
        # A row stands for a queue whose length Flower's own client asked the server for.
        until("a row of a queue", lambda: '<tr id="' in fetched(f"{flower}broker"), 60)
        cluster.run("job", "remove", "--yes", "quiet")
        cluster.down()
