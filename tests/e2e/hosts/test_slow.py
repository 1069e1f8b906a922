"""With slow links everything works: no agent becomes suspect, and no leader loses its lease."""

from __future__ import annotations

import time
from typing import Any

from tests.support.waiting import until

from .fleet import Fleet, witness

SLOW = {"delay_ms": 100, "jitter_ms": 25, "loss": 0.015, "rate_bit": 1_000_000}
"""In each direction: a round trip is 200 +- 50 ms, and each packet may be lost either way."""


def test_agent_with_a_slow_link_supports_every_operation_and_is_never_suspect(fleet: Fleet) -> None:
    seen = len(fleet.events("h4"))
    fleet.agents["h4"].slow(**SLOW)
    began_s = time.monotonic()
    fleet.run(_far(), timeout_s=60)
    print(f"8 pods, 2 behind the slow link, ran after {time.monotonic() - began_s:.1f} s")
    mine = [pod for pod in fleet.pods("far") if pod.agent == "h4"]
    assert len(mine) == 2
    pod = mine[0].pod
    assert fleet.cli("exec", pod, "--", "echo", "hello from far") == "hello from far\n"
    lines = fleet.cli("logs", "far", "--pod", str(mine[0].index), "--tail", "3", "--no-prefix").splitlines()
    assert len(lines) == 3
    before = {view.index: view.pid for view in mine}
    began_s = time.monotonic()
    fleet.change("update", _far(env={"GREETING": "again"}))
    until("the update is everywhere", lambda: _updated(fleet), 90)
    print(f"updated, four at once, in {time.monotonic() - began_s:.1f} s")
    after = {view.index: view.pid for view in fleet.pods("far") if view.agent == "h4"}
    assert after == before, "the update replaced containers"
    fleet.remove("far")
    assert [kind for kind in fleet.events("h4")[seen:] if kind.startswith("agent.")] == []


def _far(replica: int = 8, **task: Any) -> dict[str, Any]:
    job = witness("far", replica, **task)
    return job | {"deploy": job["deploy"] | {"step": 4, "drain": "100ms"}}


def _updated(fleet: Fleet) -> bool:
    view = fleet.job("far")
    return view.settled and {pod.revision for pod in view.pods} == {2}


def test_leaders_with_a_slow_link_keep_their_leases_and_run_a_job(fleet: Fleet) -> None:
    """The test reads the trace from Redis, because a message costs a leader four consecutive round trips."""
    seen = {name: len(fleet.events(name)) for name in fleet.agents}
    before = epochs(fleet)
    fleet.leader_host.slow(**SLOW)
    began_s = time.monotonic()
    with fleet.sdk(timeout_s=20) as galaxy:
        job = galaxy.submit(_far(replica=4)).job
    print(f"accepted after {time.monotonic() - began_s:.1f} s")
    until("it runs", lambda: "job.running" in fleet.events(job), 60)
    print(f"4 pods ran after {time.monotonic() - began_s:.1f} s")
    time.sleep(5)  # The absence of an event is checked, over several renewals of a two-second lease.
    assert epochs(fleet) == before
    fleet.leader_host.fast()
    fleet.remove("far")
    assert epochs(fleet) == before
    for name, count in seen.items():
        assert [kind for kind in fleet.events(name)[count:] if kind.startswith("agent.")] == [], name


def epochs(fleet: Fleet) -> dict[str, int]:
    return fleet.ask(lambda galaxy: {leader.role: leader.epoch for leader in galaxy.leaders()})
