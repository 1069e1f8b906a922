"""The messages of a step: orders to one receiver share messages of a bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.identity import identity_sync
from galaxy.appmaster.logic.jobs import pods
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.appmaster.logic.tables import TERMS
from galaxy.model.messages.container import GroupOrders
from galaxy.model.messages.liveness import order_ttl_s
from galaxy.model.messages.names import GROUP_APPLY, POD_DEPLOY, RESMAN, appworker_queue
from galaxy.model.messages.pod import PodOrder, PodOrders
from galaxy.model.step import Send

T = TypeVar("T")


def group_messages(state: AppMasterState) -> list[Send]:
    """Return the messages to ResMan: group orders, and the ``IdentityOrder`` until it is acknowledged."""
    identity = identity_sync.order(state)
    chunks = _chunks(list(state.outbox.group_orders.values()), state.config.orders_per_message_max)
    if not chunks and (state.outbox.send_identity or state.outbox.send_liveness):
        chunks = [[]]
    return [
        Send(
            queue=RESMAN,
            task=GROUP_APPLY,
            body=GroupOrders(orders=tuple(chunk), identity=identity, liveness=state.liveness.get(TERMS)),
            id=state.message_id("groups", RESMAN),
        )
        for chunk in chunks
    ]


def pod_messages(state: AppMasterState, agents: AgentReports) -> list[Send]:
    """Return the messages to agents: the pod orders of this step, and requests for full reports.

    Orders to an agent without a heartbeat wait in ``state.unsent``.
    """
    outbox = state.outbox
    sends = []
    for agent in dict.fromkeys((*outbox.pod_orders, *outbox.report_requests)):
        until_s = _orders_until_s(state, agents, agent)
        if not until_s and agent in outbox.pod_orders:
            state.unsent.setdefault(agent, {}).update(outbox.pod_orders.pop(agent))
        chunks = _chunks(_orders(state, agent), state.config.orders_per_message_max)
        report = agent in outbox.report_requests
        if not chunks and report:
            chunks = [[]]
        for chunk in chunks:
            body = PodOrders(
                agent=agent, epoch=state.epoch, orders=tuple(chunk), report=report, until_s=until_s
            )
            message_id = state.message_id("pods", agent)
            sends.append(Send(queue=appworker_queue(agent), task=POD_DEPLOY, body=body, id=message_id))
            report = False  # Only the first message asks for it.
            agents.on_sent(agent, state.now_s)
    return sends


def _orders(state: AppMasterState, agent: str) -> list[PodOrder]:
    rows = (state.pods.get(key) for key in state.outbox.pod_orders.get(agent, ()))
    return [pods.build_order(state, pod) for pod in rows if pod and pod.placed and pod.agent == agent]


def _orders_until_s(state: AppMasterState, agents: AgentReports, agent: str) -> float:
    """Return when an order to ``agent`` expires by Redis' clock.

    It expires before ResMan can declare the agent dead and place its pods elsewhere: otherwise the agent
    could start them a second time when it returns. 0.0 while no heartbeat of ``agent`` was read in this
    leadership: then it gets no order until one is read.
    """
    heartbeat_s = agents.heartbeat_redis_s(agent)
    return heartbeat_s + order_ttl_s(state.dead_s) if heartbeat_s else 0.0


def _chunks(items: Sequence[T], size_max: int) -> list[Sequence[T]]:
    return [items[start : start + size_max] for start in range(0, len(items), size_max)]
