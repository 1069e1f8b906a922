"""The SDK and the command line with a real server and real leaders, which are Celery workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from galaxy.client import Galaxy
from galaxy.errors import Conflict, NotFound, Refused, Unreachable
from galaxy.model.api.safemode import SafeModeView
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.nexus import Nexus
from tests.support.redis_server import RedisServer
from tests.support.waiting import until, within_limit

JOB = {
    "name": "web",
    "deploy": {"replica": 2},
    "pod": {"tasks": [{"cpu": "100m", "memory": "16M", "start": "run"}]},
}


@contextmanager
def leading(role: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the process of a role until it leads, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "galaxy.cli.main", role, "--name", "t"],
        env=os.environ | {"GALAXY_REDIS": url},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    nexus = Nexus.connect(url, name="test")
    try:
        end_s = time.monotonic() + 60
        while nexus.leader(role) is None:
            assert process.poll() is None, f"{role} ended at once"
            assert time.monotonic() < end_s, f"{role} does not lead"
            threading.Event().wait(0.02)
        yield process
    finally:
        nexus.close()
        process.kill()
        process.wait(timeout=30)


@pytest.fixture
def galaxy(redis_server: RedisServer) -> Iterator[Galaxy]:
    with leading(APPMASTER, redis_server.url), Galaxy(redis_server.url, timeout_s=30) as galaxy:
        yield galaxy


def test_submitted_job_is_listed_and_shown(galaxy: Galaxy) -> None:
    assert galaxy.jobs() == []
    done = galaxy.submit(JOB)
    assert [job.job for job in galaxy.jobs()] == [done.job]
    assert galaxy.job("web").spec.deploy.replica == 2


def test_submit_with_the_same_key_returns_the_same_job_and_with_another_key_conflicts(galaxy: Galaxy) -> None:
    first = galaxy.submit(JOB, key="k1")
    assert galaxy.submit(JOB, key="k1") == first
    with pytest.raises(Conflict, match='"web"'):
        galaxy.submit(JOB, key="k2")
    assert len(galaxy.jobs()) == 1


def test_error_of_appmaster_arrives_with_kind_and_hint(galaxy: Galaxy) -> None:
    with pytest.raises(NotFound, match='"nope"') as caught:
        galaxy.job("nope")
    assert caught.value.hint


def test_lost_request_is_repeated_under_the_same_key(redis_server: RedisServer) -> None:
    with Galaxy(redis_server.url, timeout_s=90) as galaxy:
        answers: list[str] = []
        asker = threading.Thread(target=lambda: answers.append(galaxy.submit(JOB, key="k1").job))
        asker.start()
        thief = Nexus.connect(redis_server.url, name="thief")
        assert thief.client.blpop([APPMASTER], timeout=30) is not None  # The message is lost.
        thief.close()
        with leading(APPMASTER, redis_server.url):
            asker.join(timeout=90)
            assert answers == [galaxy.jobs()[0].job]


def test_wait_returns_the_current_view_after_its_timeout(galaxy: Galaxy) -> None:
    seen = []
    galaxy.submit(JOB)
    began_s = time.monotonic()
    view = galaxy.wait("web", timeout_s=0.5, progress=seen.append)
    assert time.monotonic() - began_s < 3
    assert not view.settled
    assert seen


def test_wait_returns_at_once_when_something_changes(galaxy: Galaxy) -> None:
    asked_s = 0.0

    def remove() -> None:
        nonlocal asked_s
        asked_s = time.monotonic()
        galaxy.remove("web")

    def notice() -> float:
        galaxy.submit(JOB)
        timer = threading.Timer(0.3, remove)
        timer.start()
        galaxy.wait("web", timeout_s=30, until=lambda view: view.summary.state != "pending")
        noticed_s = time.monotonic()
        timer.join()
        return noticed_s - asked_s

    within_limit("noticed", 0.8, notice)  # Less than the second after which it polls anyway.


def test_answer_to_a_repeated_key_survives_the_death_of_the_leader(redis_server: RedisServer) -> None:
    with Galaxy(redis_server.url, timeout_s=90) as galaxy:
        with leading(APPMASTER, redis_server.url):
            first = galaxy.submit(JOB, key="k1")
        asked: list[str] = []
        asker = threading.Thread(target=lambda: asked.append(galaxy.submit(JOB, key="k1").job))
        asker.start()
        with leading(APPMASTER, redis_server.url):
            asker.join(timeout=90)
        assert asked == [first.job]


def test_request_without_a_leader_fails_in_time_and_is_withdrawn(redis_server: RedisServer) -> None:
    with Galaxy(redis_server.url, timeout_s=2) as galaxy:
        began_s = time.monotonic()
        with pytest.raises(Unreachable, match="no AppMaster leads") as caught:
            galaxy.submit(JOB)
        assert time.monotonic() - began_s < 5
        assert "nothing was done" in caught.value.details[0]
        assert galaxy.leaders() == []
    nexus = Nexus.connect(redis_server.url, name="test")
    assert nexus.client.llen(APPMASTER) == 0
    nexus.close()


def test_request_queued_at_a_server_that_then_stops_fails_with_an_unknown_outcome(
    redis_server: RedisServer,
) -> None:
    caught: list[Unreachable] = []

    def submit() -> None:
        with pytest.raises(Unreachable) as raised:
            galaxy.submit(JOB)
        caught.append(raised.value)

    with (
        Nexus.connect(redis_server.url, name="test") as nexus,
        Galaxy(redis_server.url, timeout_s=5) as galaxy,
    ):
        asker = threading.Thread(target=submit)
        asker.start()
        end_s = time.monotonic() + 30
        while not nexus.client.llen(APPMASTER):
            assert time.monotonic() < end_s
            time.sleep(0.01)
        redis_server.stop()
        asker.join(30)
    assert any("may still be carried out" in line for line in caught[0].details)


def test_wrong_password_is_refused_in_time(locked_redis_server: RedisServer) -> None:
    def refused() -> None:
        with pytest.raises(Refused):
            Galaxy(locked_redis_server.url.replace("open-sesame", "wrong"))

    within_limit("refused", 5.0, refused)


def test_error_about_a_dead_server_says_where_its_address_came_from(redis_server: RedisServer) -> None:
    redis_server.stop()
    with pytest.raises(Unreachable) as caught:
        Galaxy(redis_server.url)
    assert "the URL given" in caught.value.details[-1]


def test_connect_to_a_server_that_does_not_answer_fails_in_time(redis_server: RedisServer) -> None:
    redis_server.pause()
    try:

        def refused() -> None:
            with pytest.raises(Unreachable):
                Galaxy(redis_server.url)

        within_limit("failed", 5.5, refused)
    finally:
        redis_server.resume()


COMMANDS = (("job", "list"), ("job", "show", "web"), ("status",), ("discover", "web"))


def galaxy_command(*arguments: str, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
    return subprocess.run(
        [sys.executable, "-m", "galaxy.cli.main", *arguments],
        env=env | {"GALAXY_REDIS": url, "XDG_CONFIG_HOME": str(home)},
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_command_for_a_dead_cluster_prints_one_clear_message(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    def fails() -> None:
        done = galaxy_command(*arguments, url="redis://127.0.0.1:1/0", home=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("galaxy: cannot reach Redis at 127.0.0.1:1")
        assert "Traceback" not in done.stderr

    within_limit("failed", 12.0, fails)  # It retries for two seconds; the rest allows for a busy machine.


def test_command_with_a_wrong_password_prints_one_clear_message_and_exits_3(
    locked_redis_server: RedisServer, tmp_path: Path
) -> None:
    url = locked_redis_server.url.replace("open-sesame", "wrong")
    done = galaxy_command("job", "list", url=url, home=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("galaxy: Redis at 127.0.0.1")
    assert "wrong" not in done.stderr.replace("wrong password", "")


def test_run_of_a_job_that_is_not_placed_in_time_exits_2_and_says_what_to_do(
    galaxy: Galaxy, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: web\npod: {tasks: [{cpu: 1, memory: 16M, start: run}]}\n")
    url = galaxy.cluster.url
    done = galaxy_command("job", "run", str(path), "--timeout", "1s", url=url, home=tmp_path)
    assert done.returncode == 2
    assert "is pending: 0 of 1 pods healthy" in done.stderr
    assert "galaxy job show web" in done.stderr
    again = galaxy_command("job", "run", str(path), url=url, home=tmp_path)
    assert (again.returncode, "galaxy job update" in again.stderr) == (3, True)


def test_list_and_show_print_tables_names_and_json(galaxy: Galaxy, tmp_path: Path) -> None:
    import json

    job = galaxy.submit(JOB).job
    url = galaxy.cluster.url
    listed = json.loads(galaxy_command("job", "list", "-o", "json", url=url, home=tmp_path).stdout)
    assert [(line["job"], line["replica"], line["healthy"]) for line in listed] == [(job, 2, 0)]
    assert galaxy_command("job", "list", "-o", "name", url=url, home=tmp_path).stdout == "web\n"
    table = galaxy_command("job", "list", url=url, home=tmp_path).stdout.splitlines()
    assert table[0].split()[:4] == ["NAME", "ID", "TYPE", "STATE"]
    shown = galaxy_command("job", "show", "web", url=url, home=tmp_path)
    assert shown.returncode == 0
    assert f"{job}.1" in shown.stdout


def test_remove_without_a_terminal_needs_yes(galaxy: Galaxy, tmp_path: Path) -> None:
    galaxy.submit(JOB)
    url = galaxy.cluster.url
    asked = galaxy_command("job", "remove", "web", url=url, home=tmp_path)
    assert (asked.returncode, "--yes" in asked.stderr) == (64, True)
    assert galaxy.job("web").summary.state == "pending"


def test_shell_completes_names_of_jobs(galaxy: Galaxy, tmp_path: Path) -> None:
    galaxy.submit(JOB)
    env = {"_GALAXY_COMPLETE": "bash_complete", "COMP_WORDS": "galaxy job show w", "COMP_CWORD": "3"}

    def completed() -> str:
        return subprocess.run(
            [sys.executable, "-m", "galaxy.cli.main"],
            env=os.environ | env | {"GALAXY_REDIS": galaxy.cluster.url},
            capture_output=True, text=True, timeout=60, check=False,
        ).stdout  # fmt: skip

    # Completion gives up after a second, which a busy machine may exceed.
    assert until("it is completed", completed).split() == ["plain,web"]


def test_request_waits_for_a_redis_that_is_being_restarted(galaxy: Galaxy, redis_server: RedisServer) -> None:
    galaxy.timeout_s = 20.0
    done = galaxy.submit(JOB)
    redis_server.stop()
    back = threading.Timer(1.0, redis_server.start)
    back.start()
    try:
        assert [job.job for job in galaxy.jobs()] == [done.job]
    finally:
        back.join()


def test_request_fails_after_its_timeout_while_redis_is_away(redis_server: RedisServer) -> None:
    with Galaxy(redis_server.url, timeout_s=1.5) as galaxy:
        redis_server.stop()
        began_s = time.monotonic()
        with pytest.raises(Unreachable):
            galaxy.heartbeats()
        assert 1.0 < time.monotonic() - began_s < 15


def test_list_longer_than_a_page_is_returned_completely(galaxy: Galaxy) -> None:
    for number in range(5):
        galaxy.submit({**JOB, "name": f"web{number}"})
    galaxy.page_limit = 2
    assert [job.name for job in galaxy.jobs()] == [f"web{number}" for number in range(5)]


def test_resman_answers_operators_while_no_appmaster_runs(redis_server: RedisServer) -> None:
    url = redis_server.url
    with leading(RESMAN, url):
        with Galaxy(url, timeout_s=30) as galaxy, leading(APPMASTER, url):
            token = galaxy.add_user("ops", role="operator")
            with Galaxy(url, timeout_s=30, token=token) as operator:
                ann = operator.add_user("ann")
                until("ResMan knows the operator", lambda: _safe_mode(operator))
        with Galaxy(url, timeout_s=30, token=token) as operator:
            until("only ResMan leads", lambda: [leader.role for leader in operator.leaders()] == [RESMAN])
            assert operator.safe_mode().active is False
            operator.add_agent("h9", labels={"rack": "r1"})
            assert [row.agent for row in operator.agent_list().registered] == ["h9"]
            with pytest.raises(NotFound, match='no agent "h1"'):
                operator.agent("h1")
            operator.create_pool("far")
            assert [pool.pool for pool in operator.pools()] == ["far"]
            assert [record.op for record in operator.machine_audit().records] == [
                "galaxy.agent.add",
                "galaxy.pool.create",
            ]
        with Galaxy(url, timeout_s=30, token=ann) as user:
            with pytest.raises(Refused, match='user "ann" may not ask'):
                user.safe_mode()
            with pytest.raises(Unreachable, match="ResMan lists agents for operators only"):
                user.agents()


def _safe_mode(galaxy: Galaxy) -> SafeModeView | None:
    """Return ResMan's answer, or None while it does not know the operator yet."""
    try:
        return galaxy.safe_mode()
    except (Refused, Unreachable):
        return None
