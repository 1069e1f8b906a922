"""Hosts are cut off for less and for more than the time after which they are dead, one or several."""

from __future__ import annotations

import time

from tests.support.waiting import until

from .fleet import AGENTS, DEAD_S, SUSPECT_S, Fleet, is_gapless, witness

BACK_S = 20.0
"""How long a reconnected host may take to converge: Redis clients wait 5 s for an answer."""


def test_host_cut_off_for_less_than_the_dead_time_is_suspect_and_no_container_moves(fleet: Fleet) -> None:
    fleet.run(witness("blip", 4))
    containers, host = fleet.containers("blip"), fleet.agents["h1"]
    host.cut()
    began_s = time.monotonic()
    until("h1 is suspect", lambda: fleet.agent_states()["h1"] == "suspect", SUSPECT_S + 5)
    assert time.monotonic() - began_s < DEAD_S - 5, "this machine is too slow for the test"
    host.reconnect()
    until("h1 is alive", lambda: fleet.agent_states()["h1"] == "alive", BACK_S)
    until("it has settled", lambda: fleet.job("blip").settled, BACK_S)
    assert fleet.containers("blip") == containers
    before = fleet.counts("blip")
    until("all still count", lambda: all(len(n) > len(before[k]) for k, n in fleet.counts("blip").items()))
    assert all(is_gapless(lines) for lines in fleet.counts("blip").values())
    assert {pod.incarnation for pod in fleet.pods("blip")} == {1}
    fleet.remove("blip")


def test_pods_of_a_dead_host_are_placed_elsewhere_and_the_old_ones_are_destroyed_when_it_returns(
    fleet: Fleet,
) -> None:
    fleet.run(witness("lost", 4))
    host = fleet.agents["h2"]
    (mine,) = [pod for pod in fleet.pods("lost") if pod.agent == "h2"]
    host.cut()
    moved = until(
        "its pod runs elsewhere",
        lambda: [
            pod
            for pod in fleet.pods("lost")
            if pod.index == mine.index and pod.agent not in ("", "h2") and pod.state == "running"
        ],
        DEAD_S + 15,
    )[0]
    # The old program does not notice and continues to count, but discovery no longer returns it.
    assert moved.incarnation > mine.incarnation
    old, new = (f"{pod.agent}/{pod.pod}_{pod.incarnation}" for pod in (mine, moved))
    endpoints = until("all are discovered", lambda: (found := fleet.endpoints("lost"))[3:] and found)
    assert host.address not in {end.address for end in endpoints}
    assert len({(end.address, end.port) for end in endpoints}) == 4
    counted = len(fleet.counts("lost")[old])
    until("the old copy still counts", lambda: len(fleet.counts("lost")[old]) > counted)
    assert fleet.agent_states()["h2"] == "dead"
    host.reconnect()
    until("the old copy is destroyed", lambda: old not in fleet.containers("lost"), BACK_S)
    until("h2 is alive", lambda: fleet.agent_states()["h2"] == "alive", BACK_S)
    until("it has settled", lambda: fleet.job("lost").settled, BACK_S)
    assert len(fleet.containers("lost")) == 4
    assert new in fleet.containers("lost")
    ended = len(fleet.counts("lost")[old])
    before = len(fleet.counts("lost")[new])
    until("the new copy still counts", lambda: len(fleet.counts("lost")[new]) > before + 5)
    counts = fleet.counts("lost")
    assert len(counts[old]) == ended
    assert all(is_gapless(lines) for lines in counts.values())
    fleet.remove("lost")


def test_half_of_the_hosts_cut_off_at_once_starts_safe_mode_and_no_container_moves(fleet: Fleet) -> None:
    fleet.run(witness("half", 8))
    containers = fleet.containers("half")
    for name in ("h1", "h2"):
        fleet.agents[name].cut()
    until("safe mode", lambda: fleet.ask(lambda galaxy: galaxy.status()).safe_mode, SUSPECT_S + 10)
    assert "Safe mode 2 of 4 agents vanished at once" in fleet.cli("status")
    fleet.change("submit", witness("late", 1))
    time.sleep(
        DEAD_S
    )  # The absence of an event is checked: nothing moves within the time after which hosts are dead.
    assert fleet.containers("half") == containers
    assert not fleet.containers("late")
    assert "vanished at once" in str(fleet.pods("late")[0].reason)
    for name in ("h1", "h2"):
        fleet.agents[name].reconnect()
    until("safe mode is over", lambda: not fleet.ask(lambda galaxy: galaxy.status()).safe_mode, BACK_S)
    until("the waiting job runs", lambda: fleet.job("late").settled, BACK_S)
    until("all agents are alive", lambda: set(fleet.agent_states().values()) == {"alive"}, BACK_S)
    assert fleet.containers("half") == containers
    assert all(is_gapless(lines) for lines in fleet.counts("half").values())
    fleet.remove("late")
    fleet.remove("half")


def test_host_that_cannot_send_is_replaced_and_destroys_the_containers_that_it_created_meanwhile(
    fleet: Fleet,
) -> None:
    host = fleet.agents["h3"]
    host.cut("out")
    # Orders may still reach it over connections that Redis considers open.
    fleet.change("submit", witness("oneway", 4))
    until("h3 is dead", lambda: fleet.agent_states()["h3"] == "dead", DEAD_S + 15)
    until("all run", lambda: fleet.job("oneway").settled, 30)
    pods = fleet.pods("oneway")
    assert {pod.agent for pod in pods} <= set(AGENTS) - {"h3"}
    host.reconnect()
    until("h3 is alive", lambda: fleet.agent_states()["h3"] == "alive", BACK_S)
    current = {f"{pod.agent}/{pod.pod}_{pod.incarnation}" for pod in pods}
    until("only the current ones exist", lambda: fleet.containers("oneway") == current, BACK_S)
    assert all(is_gapless(fleet.counts("oneway")[key]) for key in current)
    fleet.remove("oneway")
