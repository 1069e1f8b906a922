"""Health checks by TCP, HTTP and command are reported; AppWorker does not act on them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from galaxy.model.jobspec.spec import HealthSpec, PortSpec, ServiceSpec
from galaxy.model.messages.pod import TaskState
from tests.support.redis_server import free_port
from tests.support.waiting import until

SERVER = f"""
exec {sys.executable} -S - <<'EOF'
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("sick") else 200)
        self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["GALAXY_PORT_WEB"])), Answer).serve_forever()
EOF
"""
QUICK = {"interval": 0.1, "timeout": 1.0, "failures": 2}


@pytest.fixture
def port():
    return free_port()


def test_http_check_follows_the_program_and_leaves_it_running(launch, spec, port):
    container = launch(ports={"web": port})
    health = HealthSpec(type="http", port="web", path="/ok", **QUICK)
    container.order(spec(SERVER, ports=(PortSpec(name="web"),), health=health))
    container.until_task(lambda task: task.healthy is True)
    (container.workspace / "sick").touch()
    task = container.until_task(lambda task: task.healthy is False)
    assert (task.state, task.restarts) == (TaskState.RUNNING, 0)
    assert task.reason.code == "unhealthy" and "HTTP status 503" in task.reason.message
    (container.workspace / "sick").unlink()
    task = container.until_task(lambda task: task.healthy is True)
    assert task.reason is None


def test_service_without_a_check_is_checked_by_tcp(launch, spec, port):
    container = launch(ports={"web": port})
    service = {"ports": (PortSpec(name="web"),), "services": (ServiceSpec(name="hello", port="web"),)}
    container.order(spec(f"while ! test -e go; do sleep 0.05; done; {SERVER}", **service))
    task = container.until_task(lambda task: task.state == TaskState.RUNNING)
    assert task.healthy is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)
    (container.workspace / "go").touch()
    container.until(lambda pod: pod.healthy)
    socket.create_connection(("127.0.0.1", port), 10).close()


def test_program_that_never_listens_becomes_unhealthy(launch, spec, port):
    container = launch(ports={"web": port})
    health = HealthSpec(type="tcp", port="web", **QUICK)
    container.order(spec("exec sleep 60", ports=(PortSpec(name="web"),), health=health))
    task = container.until_task(lambda task: task.healthy is False)
    assert "Connection refused" in task.reason.message


def test_command_check_follows_the_exit_code(container, spec):
    health = HealthSpec(type="command", command="test ! -e sick", **QUICK)
    container.order(spec("exec sleep 60", health=health))
    container.until_task(lambda task: task.healthy is True)
    (container.workspace / "sick").touch()
    assert "exit code 1" in container.until_task(lambda task: task.healthy is False).reason.message


def test_command_check_that_hangs_counts_as_failed(container, spec):
    health = HealthSpec(type="command", command="sleep 30", interval=0.1, timeout=0.1, failures=1)
    container.order(spec("exec sleep 60", health=health))
    assert "not ended within 0.1 s" in container.until_task(lambda task: task.healthy is False).reason.message


def test_program_without_any_check_is_healthy_once_it_stays_up(container, spec):
    container.order(spec("exec sleep 60"))
    assert not container.until_task(lambda task: task.state == TaskState.RUNNING).healthy
    container.until(lambda pod: pod.healthy)


def test_health_is_checked_while_the_program_floods_its_log(launch, spec):
    container = launch(log_bytes_max=1024 * 1024, log_files_max=2)
    health = HealthSpec(type="command", command="test ! -e sick", **QUICK)
    container.order(spec("exec yes flood", health=health))
    container.until_task(lambda task: task.healthy is True)
    container.until_true(lambda: (container.logs / "main.stdout.1").exists())
    (container.workspace / "sick").touch()
    container.until_task(lambda task: task.healthy is False)
    total = 0
    for path in container.logs.glob("main.stdout*"):
        with contextlib.suppress(FileNotFoundError):  # Rotated away meanwhile.
            total += path.stat().st_size
    assert total <= 2 * 1024 * 1024 + 65536
    with open(f"/proc/{container.pid}/smaps_rollup") as file:
        dirty_kib = next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))
    assert dirty_kib < 16 * 1024


LEAVING = {
    "a background process": "{sleep} & exit 0",
    "a process in its own session": "setsid {sleep} & exit 0",
    "a daemon without environment": "(env -i setsid {sleep} >/dev/null 2>&1 &) & exit 0",
    "a process that ignores signals": "(trap '' TERM INT HUP; {sleep}) & exit 0",
    "a process that forks on": "(while :; do {sleep} & /bin/sleep 0.01; done) & exit 0",
}
"""Commands that end at once and leave processes running; the test recognises ``{sleep}``."""


def sleeping(seconds):
    """Return the pids of the processes ``sleep SECONDS``."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [int(pid)] if argv[1:2] == [seconds.encode()] else []
    return found


@pytest.mark.parametrize("leaving", LEAVING.values(), ids=LEAVING)
def test_check_ends_with_everything_that_it_has_started(container, spec, leaving):
    seconds = f"{300 + os.getpid() / 1e7:.7f}"  # Tells the processes of this test apart.
    command = f"echo >> checks; {leaving.format(sleep=f'sleep {seconds}')}"
    health = HealthSpec(type="command", command=command, **QUICK)
    container.order(spec("exec sleep 60", health=health))
    container.until_true(lambda: container.text("checks").count("\n") >= 4)
    container.until_task(lambda task: task.healthy is True)
    container.until_true(lambda: len(sleeping(seconds)) <= 2, 5.0)
    container.order(spec("exec sleep 60"))
    container.until_true(lambda: not sleeping(seconds), 5.0)


def test_check_that_hangs_in_its_own_session_is_killed_at_its_timeout(container, spec):
    seconds = f"{300 + os.getpid() / 1e7:.7f}"
    health = HealthSpec(
        type="command", command=f"setsid sleep {seconds} & wait", interval=0.1, timeout=0.2, failures=1
    )
    container.order(spec("exec sleep 60", health=health))
    assert "not ended within 0.2 s" in container.until_task(lambda task: task.healthy is False).reason.message
    container.order(spec("exec sleep 60"))
    container.until_true(lambda: not sleeping(seconds), 5.0)


def test_stop_command_ends_with_everything_that_it_has_started(container, spec):
    seconds = f"{300 + os.getpid() / 1e7:.7f}"
    stop = f"(setsid sleep {seconds} &) ; echo > stopping; kill $(cat pid)"
    container.order(spec("echo $$ > pid; exec sleep 60", stop=stop))
    container.until_true(lambda: container.text("pid"))
    container.order(spec("exec sleep 60", stop=stop), run=False)
    container.until_task(lambda task: task.state == TaskState.STOPPED)
    assert container.text("stopping") and not sleeping(seconds)


def test_check_ends_with_its_appworker(container, spec):
    seconds = f"{300 + os.getpid() / 1e7:.7f}"
    command = f"echo > checks; (env -i setsid sleep {seconds} &) ; sleep 60"
    health = HealthSpec(type="command", command=command, interval=0.1, timeout=60)
    container.order(spec("exec sleep 5", health=health))
    container.until_true(lambda: container.text("checks") and sleeping(seconds))
    os.kill(container.pid, signal.SIGKILL)
    container.ended()
    until("the check has ended", lambda: not sleeping(seconds), every_s=0.02)
