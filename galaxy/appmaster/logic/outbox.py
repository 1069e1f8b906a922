"""The output of the current step, except replies: filled while the step runs, empty between steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from galaxy.model.messages.container import GroupOrder
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send


@dataclass(kw_only=True)
class Outbox:
    """Collects the output of one step, so that orders to one receiver share a message.

    ``group_orders`` has orders by group. ``pod_orders`` has, by agent, the pods whose current order is sent.
    ``report_requests`` has the agents that are asked for a full report. With ``send_identity``, the
    ``IdentityOrder`` is sent to ResMan even without a group order.
    """

    sends: list[Send] = field(default_factory=list)
    trace: list[TraceEvent] = field(default_factory=list)
    group_orders: dict[str, GroupOrder] = field(default_factory=dict)
    pod_orders: dict[str, dict[str, None]] = field(default_factory=dict)
    report_requests: dict[str, None] = field(default_factory=dict)
    send_identity: bool = False
    send_liveness: bool = False
    """Whether to confirm new ``LivenessTerms`` to ResMan even without a group order."""
