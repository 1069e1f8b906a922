"""A host is drained under load, and one whose jobs cannot move: by its deadline, with the reason."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError
from tests.support.waiting import until

from .fleet import GALAXY, Fleet, _environ

SERVE = (
    "import http.server,os;"
    "H=type('H',(http.server.BaseHTTPRequestHandler,),{'log_message':lambda *_:None,'do_GET':lambda s:("
    "s.send_response(200),s.end_headers(),s.wfile.write(os.environ['GALAXY_HOST'].encode()))});"
    "http.server.ThreadingHTTPServer(('0.0.0.0',int(os.environ['GALAXY_PORT_HTTP'])),H).serve_forever()"
)


def web(name: str, **deploy: Any) -> dict[str, Any]:
    """Return a service that answers HTTP with the name of its host."""
    return {
        "name": name,
        "deploy": deploy,
        "pod": {
            "workspace": "16M",
            "tasks": [{
                "cpu": "50m", "memory": "48M", "start": f'exec python3 -c "{SERVE}"', "ports": ["http"],
                "services": [name], "health": {"type": "http", "interval": "500ms"},
            }],
        },
    }  # fmt: skip


class Load:
    """Requests to a service, one after the other, each to the next endpoint that discovery names."""

    def __init__(self, fleet: Fleet, service: str) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._fleet = fleet
        self._service = service
        self._ending = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Load]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            thread.join(60)

    def _run(self) -> None:
        with self._fleet.sdk() as galaxy:
            while not self._ending.is_set():
                self._ask(galaxy)

    def _ask(self, galaxy: Galaxy) -> None:
        try:
            endpoints = galaxy.discover(self._service)
        except GalaxyError as error:
            self.failures.append(f"discover: {error.message}")
            return
        if not endpoints:
            self.failures.append("no endpoint")
            time.sleep(0.05)
            return
        endpoint = endpoints[len(self.answers) % len(endpoints)]
        try:
            with urllib.request.urlopen(f"http://{endpoint.address}:{endpoint.port}/", timeout=5) as answer:
                self.answers.append(answer.read().decode())
        except OSError as error:
            self.failures.append(f"{endpoint.pod} at {endpoint.address}: {error}")


@contextmanager
def back_in_service(fleet: Fleet, *hosts: str) -> Iterator[None]:
    """Put hosts back into service after the test, whatever it did."""
    try:
        yield
    finally:
        with suppress(GalaxyError):
            fleet.change("online", hosts)


def agents_of(fleet: Fleet, job: str) -> set[str]:
    return {pod.agent for pod in fleet.job(job).pods if pod.state == "running"}


def test_host_is_drained_under_load_without_a_failed_request(fleet: Fleet) -> None:
    job = web("drained", replica=2)
    fleet.run(job)
    first, second = sorted(agents_of(fleet, "drained"))
    load = Load(fleet, "drained")
    with back_in_service(fleet, first, second), load.running():
        until("requests are answered", lambda: len(load.answers) > 20)
        for host in (first, second):
            printed = fleet.cli("agent", "drain", host, "--reason", "test")
            assert f"{host} is drained: no container is left" in printed
            assert host not in agents_of(fleet, "drained")
            assert not [path for path in fleet.containers("drained") if path.startswith(f"{host}/")]
        seen = len(load.answers)
        until("requests go on", lambda: len(load.answers) > seen + 20)
    print(f"{len(load.answers)} requests, {len(load.failures)} failed")
    assert load.failures == []
    assert {first, second} < set(load.answers)
    assert not {first, second} & set(load.answers[-5:])
    fleet.remove("drained")


def test_host_whose_jobs_cannot_move_is_emptied_at_the_deadline_with_the_reason(fleet: Fleet) -> None:
    fleet.run(web("stuck", replica=4, max_per_host=1, drain=0))
    with back_in_service(fleet, "h1"):
        began_s = time.monotonic()
        done = fleet.client_host.run(
            [*GALAXY, "agent", "drain", "h1", "--deadline", "6s"], capture_output=True, text=True, timeout=90,
            env=_environ() | {"GALAXY_REDIS": fleet.url()},
        )  # fmt: skip
        assert time.monotonic() - began_s > 6
        assert done.returncode == 2, done.stderr
        assert "h1 is drained: no container is left" in done.stdout
        assert "hold as many of this group as one host may" in done.stderr
        assert "has no place: no agent has room" in done.stderr
        assert agents_of(fleet, "stuck") == {"h2", "h3", "h4"}
        printed = fleet.cli("agent", "online", "h1")
        assert printed == "online: h1\n"
    until("all pods run", lambda: agents_of(fleet, "stuck") == {"h1", "h2", "h3", "h4"}, 30)
    fleet.remove("stuck")
