"""Hosts are cut off for less and for more than it takes to be dead, alone and many at once."""

from __future__ import annotations

import time

from tests.support.waiting import until

from .fleet import AGENTS, DEAD_S, SUSPECT_S, Fleet, unbroken, witness

BACK_S = 20.0
"""How long a host may need, once it is back, to be as wanted: Redis' clients wait 5 s for an answer."""


def test_host_cut_off_for_less_than_the_dead_time_is_suspect_and_nothing_moves(fleet: Fleet) -> None:
    fleet.run(witness("blip", 4))
    lives, host = fleet.lives("blip"), fleet.agents["h1"]
    host.cut()
    began_s = time.monotonic()
    until("h1 is suspect", lambda: fleet.standings()["h1"] == "suspect", SUSPECT_S + 5)
    assert time.monotonic() - began_s < DEAD_S - 5, "too slow a machine for this test"
    host.join()
    until("h1 is alive", lambda: fleet.standings()["h1"] == "alive", BACK_S)
    until("all is as wanted", lambda: fleet.job("blip").settled, BACK_S)
    assert fleet.lives("blip") == lives
    before = fleet.counts("blip")
    until("all count on", lambda: all(len(n) > len(before[k]) for k, n in fleet.counts("blip").items()))
    assert all(unbroken(lines) for lines in fleet.counts("blip").values())
    assert {pod.incarnation for pod in fleet.pods("blip")} == {1}
    fleet.remove("blip")


def test_dead_hosts_pods_are_placed_elsewhere_and_its_old_ones_end_when_it_returns(fleet: Fleet) -> None:
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
    # Its program cannot know: it counts on, but nobody is told of it any more.
    assert moved.incarnation > mine.incarnation
    old, new = (f"{pod.agent}/{pod.pod}_{pod.incarnation}" for pod in (mine, moved))
    told = until("all are discovered", lambda: (ends := fleet.endpoints("lost"))[3:] and ends)
    assert host.address not in {end.address for end in told}
    assert len({(end.address, end.port) for end in told}) == 4
    counted = len(fleet.counts("lost")[old])
    until("the old copy counts on", lambda: len(fleet.counts("lost")[old]) > counted)
    assert fleet.standings()["h2"] == "dead"
    host.join()
    until("the old copy is destroyed", lambda: old not in fleet.lives("lost"), BACK_S)
    until("h2 is alive", lambda: fleet.standings()["h2"] == "alive", BACK_S)
    until("all is as wanted", lambda: fleet.job("lost").settled, BACK_S)
    assert len(fleet.lives("lost")) == 4
    assert new in fleet.lives("lost")
    ended = len(fleet.counts("lost")[old])
    before = len(fleet.counts("lost")[new])
    until("the new copy counts on", lambda: len(fleet.counts("lost")[new]) > before + 5)
    counts = fleet.counts("lost")
    assert len(counts[old]) == ended
    assert all(unbroken(lines) for lines in counts.values())
    fleet.remove("lost")


def test_half_of_the_hosts_cut_off_at_once_is_safe_mode_and_nothing_moves(fleet: Fleet) -> None:
    fleet.run(witness("half", 8))
    lives = fleet.lives("half")
    for name in ("h1", "h2"):
        fleet.agents[name].cut()
    until("safe mode", lambda: fleet.ask(lambda galaxy: galaxy.status()).safe_mode, SUSPECT_S + 10)
    assert "safe mode: 2 of 4 agents vanished at once" in fleet.cli("status")
    fleet.change("submit", witness("late", 1))
    # What is tested is that nothing happens when they could be dead.
    time.sleep(DEAD_S)
    assert fleet.lives("half") == lives
    assert not fleet.lives("late")
    assert "vanished at once" in str(fleet.pods("late")[0].reason)
    for name in ("h1", "h2"):
        fleet.agents[name].join()
    until("safe mode is over", lambda: not fleet.ask(lambda galaxy: galaxy.status()).safe_mode, BACK_S)
    until("what waited runs", lambda: fleet.job("late").settled, BACK_S)
    until("all agents are alive", lambda: set(fleet.standings().values()) == {"alive"}, BACK_S)
    assert fleet.lives("half") == lives
    assert all(unbroken(lines) for lines in fleet.counts("half").values())
    fleet.remove("late")
    fleet.remove("half")


def test_host_that_hears_and_cannot_speak_is_replaced_and_destroys_what_it_made_meanwhile(
    fleet: Fleet,
) -> None:
    host = fleet.agents["h3"]
    host.cut("out")
    # Orders may still reach it, over connections that Redis believes in.
    fleet.change("submit", witness("deaf", 4))
    until("h3 is dead", lambda: fleet.standings()["h3"] == "dead", DEAD_S + 15)
    until("all run", lambda: fleet.job("deaf").settled, 30)
    pods = fleet.pods("deaf")
    assert {pod.agent for pod in pods} <= set(AGENTS) - {"h3"}
    host.join()
    until("h3 is alive", lambda: fleet.standings()["h3"] == "alive", BACK_S)
    current = {f"{pod.agent}/{pod.pod}_{pod.incarnation}" for pod in pods}
    until("only the current ones are there", lambda: fleet.lives("deaf") == current, BACK_S)
    assert all(unbroken(fleet.counts("deaf")[life]) for life in current)
    fleet.remove("deaf")
