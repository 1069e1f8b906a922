"""Batch jobs run to their end, from a shell and from Debian's cron."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until

from .conftest import Cluster, job_file


def test_run_with_wait_returns_the_exit_code_and_logs_keep_the_output(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    for name, start, status in (("good", "echo well done", 0), ("bad", "echo no luck; exit 7", 7)):
        jobs(name)
        path = job_file(tmp_path, name, type="batch", task={"start": start, "restart": "never"})
        errors = cluster.run("job", "run", "--wait", "--quiet", str(path), status=status).stderr
        assert ("1 of 1 pods" in errors) is (status == 0)  # Quiet, but the outcome is printed.
        assert start.split(";")[0].removeprefix("echo ") in cluster.run("logs", name).stdout


def test_run_without_wait_says_what_is_known_and_quotes_the_pod_that_failed(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("known")
    start = "echo pod $GALAXY_POD_INDEX; case $GALAXY_POD_INDEX in 1) exit 3;; 2) exit 2;; esac"
    task = {"start": start, "restart": "never"}
    path = job_file(tmp_path, "known", type="batch", deploy={"replica": 4}, task=task)
    assert cluster.run("job", "run", "--wait", "--quiet", str(path), status=3).returncode == 3
    shown = cluster.run("job", "show", "known").stdout
    assert "State     failed, exit code 3; settled" in shown
    assert "pod 1" in shown
    cluster.run("job", "recover", "--quiet", "known", status=1)
    assert until("it has failed again", lambda: cluster.show("known").exit_code) == 3


def test_mending_a_crash_looping_job_succeeds(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("mended")
    restart = {"policy": "always", "delay": "0.1s", "delay_max": "0.2s"}
    bad = job_file(tmp_path, "mended", task={"start": "exit 3", "restart": restart})
    assert "exit code 3" in cluster.run("job", "run", "--quiet", str(bad), status=2).stderr
    assert cluster.show("mended").summary.state == "degraded"
    good = job_file(tmp_path, "mended", task={"start": "exec sleep 1000", "restart": restart})
    cluster.run("job", "update", "--quiet", str(good))
    (pod,) = cluster.pods("mended")
    assert pod.revision_restarts == 0 and pod.restarts >= 5


@pytest.fixture
def crontab() -> Iterator[Callable[[str], Callable[[], None]]]:
    """Install text into /etc/cron.d. The function returned makes sure that a cron daemon runs."""
    if shutil.which("cron") is None:
        pytest.skip("Debian's cron is not installed")
    place = Path(f"/etc/cron.d/galaxy-test-{os.getpid()}")
    started: list[subprocess.Popen[bytes]] = []

    def install(text: str) -> Callable[[], None]:
        place.write_text(text)
        place.chmod(0o644)
        return ensure_daemon

    def ensure_daemon() -> None:
        """Start cron unless ours runs. It ends at once while another cron of this host has its lock."""
        if not started or started[-1].poll() is not None:
            command = ["cron", "-f"]
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True))

    yield install
    place.unlink(missing_ok=True)
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.timeout(240)
def test_job_from_cron_runs_once_with_its_output_logged_and_its_exit_code_returned(
    cluster: Cluster,
    tmp_path: Path,
    jobs: Callable[[str], None],
    crontab: Callable[[str], Callable[[], None]],
) -> None:
    jobs("nightly")
    start = "echo line from cron; exit 5"
    job = job_file(tmp_path, "nightly", type="batch", task={"start": start, "restart": "never"})
    log, status = tmp_path / "cron.log", tmp_path / "status"
    printed = cluster.run("job", "cron", "--schedule", "* * * * *", str(job)).stdout.strip()
    command = printed.removeprefix("* * * * * ")
    # Cron runs the line every minute. The first run creates the folder and runs the job; later ones fail.
    # /etc/cron.d names the user; otherwise the environment is cron's own, without PATH or GALAXY_DIR.
    ensure_daemon = crontab(
        f"* * * * * root mkdir {tmp_path}/once && {{ {command} >{log} 2>&1; echo $? >>{status}; }}\n"
    )

    def exit_status() -> str:
        ensure_daemon()
        return status.read_text().strip() if status.exists() else ""

    assert until("cron's job has ended", exit_status, timeout_s=150, every_s=0.5) == "5"
    assert "line from cron" in log.read_text()
    logs = list((cluster.folder / "agent").glob("*/logs/nightly-*/*.stdout*"))
    assert sum(file.read_text().count("line from cron") for file in logs) == 1
