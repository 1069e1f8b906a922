"""Users of a real cluster: added, granted, refused, and recorded in the audit trail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from galaxy.client import Galaxy
from galaxy.errors import Refused
from tests.e2e.cluster.conftest import GALAXY, Cluster, job_file
from tests.support.waiting import until


@pytest.fixture
def token(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Return a function that adds a user and returns the token; users are removed after the test."""
    added: list[str] = []

    def add(user: str) -> str:
        added.append(user)
        return cluster.run("user", "add", user).stdout.strip()

    yield add
    for user in added:
        cluster.run("user", "remove", "--yes", user, status=None)


def as_user(cluster: Cluster, token: str, *arguments: str, status: int | None = 0) -> str:
    """Run a command with only a token and the clients' login; return its output and errors."""
    environ = {name: value for name, value in cluster.environ.items() if name != "GALAXY_DIR"}
    environ |= {"GALAXY_REDIS": cluster.file()["url"], "GALAXY_TOKEN": token}
    done = subprocess.run(
        [*GALAXY, *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_user_who_starts_a_cluster_is_its_operator_and_others_are_refused(cluster: Cluster) -> None:
    (me,) = [user for user in cluster.json("user", "list") if user["role"] == "operator"]
    assert cluster.file()["token"].startswith(f"{me['user']}:")
    output = as_user(cluster, "", "job", "list", status=3)
    assert "not signed" in output and "GALAXY_TOKEN" in output
    output = as_user(cluster, f"{me['user']}:" + "x" * 40, "status", status=3)
    assert "wrong" in output
    assert (
        cluster.file()["token"].encode() not in Path(f"/proc/{cluster.pid('appmaster')}/environ").read_bytes()
    )
    with pytest.raises(Refused), Galaxy(cluster.file()["url"]) as galaxy:
        galaxy.agents()


def test_user_can_do_what_is_granted_and_cannot_change_or_read_jobs_of_others(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None], token: Callable[[str], str]
) -> None:
    jobs("mine")
    ann, bob = token("ann"), token("bob")
    path = str(
        job_file(tmp_path, "mine", deploy={"pools": ["main"]}, task={"start": "echo secret; sleep 1000"})
    )
    output = as_user(cluster, ann, "job", "run", path, status=3)
    assert "submit_job is not granted on pool main" in output
    everything = ("submit_job", "update_job", "remove_job", "list_job")
    for user in ("ann", "bob"):
        cluster.run("user", "grant", user, "main", "add", *everything)
    as_user(cluster, ann, "job", "run", path)
    assert "hi" in as_user(cluster, ann, "exec", "mine", "--", "echo", "hi")
    until("logs", lambda: "secret" in as_user(cluster, ann, "logs", "mine"))
    for arguments in (
        ("exec", "mine", "--", "id"),
        ("logs", "mine"),
        ("job", "update", path),
        ("job", "stop", "mine"),
        ("job", "remove", "--yes", "mine"),
        ("user", "list"),
        ("audit",),
        ("user", "grant", "bob", "*", "add", "list_job"),
    ):
        output = as_user(cluster, bob, *arguments, status=3)
        assert 'user "bob" may not' in output
    assert "mine" in as_user(cluster, bob, "job", "list")
    as_user(cluster, ann, "job", "remove", "--yes", "mine")
    trail = [(one["user"], one["op"], one["target"], one["result"]) for one in cluster.json("audit")]
    assert ("ann", "galaxy.job.submit", "mine", "refused") in trail
    assert ("ann", "galaxy.job.submit", "mine", "ok") in trail
    assert ("bob", "galaxy.pod.exec", "mine", "refused") in trail
    assert any(one[:2] == ("ann", "galaxy.job.remove") and one[3] == "ok" for one in trail)


def test_new_token_invalidates_the_old_one(cluster: Cluster, token: Callable[[str], str]) -> None:
    old = token("cyd")
    new = as_user(cluster, old, "user", "token", "cyd").strip()
    assert "wrong" in as_user(cluster, old, "job", "list", status=3)
    as_user(cluster, new, "job", "list")


def test_followed_audit_prints_entries_as_they_happen(cluster: Cluster, token: Callable[[str], str]) -> None:
    following = subprocess.Popen(
        [*GALAXY, "audit", "-f", "-n", "1"], env=cluster.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        token("dan")
        assert following.stdout is not None
        end_s = time.monotonic() + 60
        while "user.add  dan  ok" not in (line := following.stdout.readline()):
            assert line and time.monotonic() < end_s
    finally:
        following.kill()
        following.communicate(timeout=10)


def test_context_of_a_remote_cluster_uses_a_token_and_does_not_show_it(
    cluster: Cluster, tmp_path: Path, token: Callable[[str], str]
) -> None:
    file = tmp_path / "token"
    file.write_text(token("eve") + "\n")
    cluster.run("context", "add", "far", "--redis", cluster.file()["url"], "--token", str(file))
    try:
        assert cluster.run("job", "list", "--context", "far", "-o", "name").returncode == 0
        shown = cluster.run("context", "list", "-o", "json").stdout
        assert file.read_text().strip() not in shown
        assert cluster.run("user", "list", "--context", "far", status=3)
    finally:
        cluster.run("context", "remove", "far")


def test_user_with_a_job_cannot_be_removed_and_a_later_namesake_owns_none_of_the_old_jobs(
    cluster: Cluster, tmp_path: Path, jobs: Callable[[str], None], token: Callable[[str], str]
) -> None:
    jobs("legacy")
    old = token("fay")
    path = str(job_file(tmp_path, "legacy", task={"start": "echo inherited; sleep 1000"}))
    cluster.run("user", "grant", "fay", "*", "add", "submit_job", "update_job", "remove_job")
    as_user(cluster, old, "job", "run", path)
    until("logs", lambda: "inherited" in as_user(cluster, old, "logs", "legacy"))
    done = cluster.run("user", "remove", "--yes", "fay", status=3)
    assert 'cannot remove user "fay": 1 job' in done.stderr
    assert "legacy is running, 1 container" in done.stderr
    assert "galaxy job remove legacy" in done.stderr
    as_user(cluster, old, "job", "remove", "--yes", "legacy")
    cluster.run("user", "remove", "--yes", "fay")
    new = token("fay")
    assert "wrong" in as_user(cluster, old, "job", "list", status=3)
    assert "legacy" not in as_user(cluster, new, "job", "list", "--all")
    for arguments in (("logs", "legacy"), ("exec", "legacy", "--", "id"), ("job", "show", "legacy")):
        assert 'user "fay" may not' in as_user(cluster, new, *arguments, status=3)
    assert "inherited" in cluster.run("logs", "legacy").stdout
