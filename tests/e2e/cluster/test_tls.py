"""A whole cluster over TLS."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster.conftest import Cluster, job_file, until
from tests.support.tls import NEEDED, running_tls_server


@pytest.mark.skipif(not NEEDED, reason="needs openssl and a server with TLS")
def test_cluster_over_tls_runs_jobs_and_shows_them(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster()
    with running_tls_server() as tls:
        cluster.up("--redis", tls.url())
        cluster.run("job", "run", str(job_file(tmp_path, "quiet")))
        assert cluster.run("exec", "quiet", "--", "echo", "hi").stdout == "hi\n"
        flower = cluster.file()["flower"]

        def seen() -> bool:
            with urllib.request.urlopen(f"{flower}workers?json=1", timeout=10) as answer:
                return len([row for row in json.load(answer)["data"] if row["status"]]) == 3

        until("Flower sees all workers", seen)
        with urllib.request.urlopen(f"{flower}broker", timeout=15) as answer:
            assert b'<tr id="web">' in answer.read()  # Flower's own client has asked the server.
        cluster.run("job", "remove", "--yes", "quiet")
        cluster.down()
