"""Reasons that are shown for agents whose heartbeats ResMan refuses."""

from __future__ import annotations

import pytest

from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages.agent import Heartbeat, HeartbeatsRead
from galaxy.resman.logic.agents.refused import REFUSED_MAX, refused_agents
from tests.unit.resman.cluster import Cluster, info


def test_agent_that_sends_another_wire_version_is_told_until_it_is_upgraded() -> None:
    mixed = Cluster(info("h1"), info("h2"))
    assert mixed.resman.state.sums["all"].refused == ()
    mixed.hosts["h2"].wire = 99
    mixed.run(4.0)
    (told,) = mixed.resman.state.sums["all"].refused
    assert told.message.startswith("h2: wire version '99' is not")
    mixed.hosts["h2"].wire = WIRE_VERSION
    mixed.run(4.0)
    assert mixed.resman.state.sums["all"].refused == ()


def test_refused_agents_are_listed_while_they_send_heartbeats_up_to_a_limit() -> None:
    far = [Heartbeat(agent=f"h{i:03}", at_s=1000.0 - i, boot="b", wire=99) for i in range(100)]
    near = Heartbeat(agent="near", at_s=1000.0, boot="b", wire=WIRE_VERSION)
    told = refused_agents(HeartbeatsRead(now_s=1000.0, heartbeats=(near, *far)))
    assert len(told) == REFUSED_MAX + 1
    assert told[-1].message.startswith("41 more")
    assert told[0].message.startswith(f"h000: wire version '99' is not {WIRE_VERSION}")
    assert "upgrade the older" in told[0].message
    assert refused_agents(HeartbeatsRead(now_s=2000.0, heartbeats=(near, *far))) == ()


def test_many_invented_agents_hide_none_that_resman_knows() -> None:
    crowd = [Heartbeat(agent=f"fake{i}", at_s=1000.0, boot="b", wire=99) for i in range(30)]
    real = Heartbeat(agent="real", at_s=990.0, boot="b", wire=99)
    told = refused_agents(HeartbeatsRead(now_s=1000.0, heartbeats=(*crowd, real)), {"real"})
    assert told[0].message.startswith("real: ")
    assert told[-1].message.startswith("11 more")


@pytest.mark.parametrize("name", ["h\x1b[2J", "h\n", "", "h" * 64])
def test_refused_agent_whose_name_no_host_can_have_is_counted_and_not_named(name: str) -> None:
    (told,) = refused_agents(
        HeartbeatsRead(now_s=10.0, heartbeats=(Heartbeat(agent=name, at_s=10.0, boot="b", wire=99),))
    )
    assert told.message.startswith("1 under names that no host can have")
