"""ResMan and AppMaster agree on the silence after which an agent is dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import GroupStatuses
from galaxy.model.messages.liveness import LivenessTerms, order_ttl_s
from galaxy.model.messages.names import APPMASTER, POD_DEPLOY, RESMAN
from galaxy.model.messages.pod import PodOrders
from galaxy.model.stored.agent import AgentRecord
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.config import with_liveness_times
from galaxy.testing.simulation.scenario import Scenario
from tests.unit.appmaster.world import service

LONG_S, SHORT_S = 40.0, 12.0


def resmans(*dead_s: float) -> Callable[[], ResMan]:
    """Return what builds the ResMan of each process in turn; the last one is built again and again."""
    left = list(dead_s)

    def build() -> ResMan:
        times = left.pop(0) if len(left) > 1 else left[0]
        return ResMan(with_liveness_times(ResManConfig(), suspect_s=4.0, dead_s=times))

    return build


def terms(scenario: Scenario, role: str) -> LivenessTerms:
    return scenario.stored(role, "liveness", LivenessTerms)["terms"]


def submit(scenario: Scenario) -> None:
    scenario.request(
        Request(
            op=SubmitJob.op,
            key="key",
            reply="reply",
            deadline_s=scenario.now_s + 30,
            body=SubmitJob(spec=service(replica=3)),
        )
    )
    scenario.run_until(lambda: len(scenario.programs()) == 3, 30.0)


def seconds_until_dead(scenario: Scenario, host: str) -> float:
    """Cut a host off, and return how long ResMan takes to declare it dead."""
    scenario.hosts[host].cut_off(1000.0)

    def dead() -> bool:
        return scenario.stored(RESMAN, "agents", AgentRecord)[host].state is AgentState.DEAD

    return scenario.run_until(dead, 100.0)


@pytest.mark.parametrize("dead_s", [SHORT_S, LONG_S])
def test_orders_of_appmaster_expire_before_resman_declares_their_agent_dead(dead_s: float) -> None:
    scenario = Scenario(resman=resmans(dead_s))
    submit(scenario)
    orders = [send.body for send in scenario.sends if send.task == POD_DEPLOY]
    for order in orders:
        assert isinstance(order, PodOrders)
        assert order.until_s <= scenario.now_s + order_ttl_s(dead_s)
    assert scenario.logic(APPMASTER).state.dead_s == dead_s


def test_next_appmaster_uses_what_resman_told_the_last_one() -> None:
    scenario = Scenario(resman=resmans(SHORT_S))
    submit(scenario)
    scenario.leaders[RESMAN].pause(1000.0)
    scenario.failover(APPMASTER)
    assert scenario.logic(APPMASTER).state.dead_s == SHORT_S


def test_resman_with_a_longer_time_uses_it_at_once() -> None:
    scenario = Scenario(resman=resmans(SHORT_S, LONG_S))
    submit(scenario)
    scenario.failover(RESMAN)
    scenario.run_until(lambda: scenario.logic(APPMASTER).state.dead_s == LONG_S, 30.0)
    assert terms(scenario, RESMAN).dead_s == LONG_S
    assert seconds_until_dead(scenario, "h1") > LONG_S - 3.0


def test_resman_with_a_shorter_time_keeps_the_longer_one_until_older_orders_have_expired() -> None:
    scenario = Scenario(resman=resmans(LONG_S, SHORT_S))
    submit(scenario)
    scenario.failover(RESMAN)
    scenario.run_until(lambda: scenario.logic(APPMASTER).state.dead_s == SHORT_S, 30.0)
    assert seconds_until_dead(scenario, "h1") > order_ttl_s(LONG_S)
    scenario.run(LONG_S)
    assert terms(scenario, RESMAN).dead_s == SHORT_S
    assert seconds_until_dead(scenario, "h2") < SHORT_S + 5.0


def test_resman_keeps_the_longer_time_while_no_appmaster_confirms_the_shorter_one() -> None:
    scenario = Scenario(resman=resmans(LONG_S, SHORT_S))
    submit(scenario)
    scenario.leaders[APPMASTER].pause(1000.0)
    scenario.failover(RESMAN)
    scenario.run(3 * LONG_S)
    assert terms(scenario, RESMAN).dead_s == LONG_S
    assert seconds_until_dead(scenario, "h1") > LONG_S - 3.0


def test_late_terms_of_an_earlier_resman_change_nothing() -> None:
    scenario = Scenario(resman=resmans(SHORT_S))
    submit(scenario)
    epoch = terms(scenario, APPMASTER).epoch
    late = LivenessTerms(epoch=epoch - 1, dead_s=LONG_S)
    scenario.deliver(APPMASTER, GroupStatuses(statuses=(), liveness=late))
    assert scenario.logic(APPMASTER).state.dead_s == SHORT_S
