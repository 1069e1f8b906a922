"""ResMan's logic: reconciles agents and container groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galaxy.model.api.request import Request
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead, MetersRead
from galaxy.model.messages.container import GroupOrders, Reason
from galaxy.model.messages.trace import report_cause, request_cause, timer_cause
from galaxy.model.step import Step
from galaxy.model.stored.table import Table
from galaxy.resman.logic.agents import liveness_terms
from galaxy.resman.logic.agents.failures import reset_old_failures
from galaxy.resman.logic.agents.heartbeats import on_heartbeats
from galaxy.resman.logic.agents.leaving import Leaving
from galaxy.resman.logic.agents.replace_lost import ReplaceLost
from galaxy.resman.logic.agents.reports import on_report
from galaxy.resman.logic.agents.safe_mode import SafeMode
from galaxy.resman.logic.api import requests
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.groups.groups import apply_order, remove_ended
from galaxy.resman.logic.groups.step_messages import StepMessages, pop_due, pop_due_and_give_up
from galaxy.resman.logic.placement.placement import place_waiting
from galaxy.resman.logic.state.accounts import Accounts
from galaxy.resman.logic.state.loads import AgentLoads
from galaxy.resman.logic.state.measured import MeasuredUsage
from galaxy.resman.logic.state.state import ResManState

MORE_LOST_S = 0.2
"""Wait before the next containers of dead agents are replaced."""
MORE_RECORDS_S = 0.05
"""Wait before the loads of more agents are recorded, and more rows of usage merged."""


class ResMan:
    """The resource layer's leader, as a ``galaxy.model.step.Logic``.

    The cost of a step grows with what changed: it reads no agent or container without an event, except
    for one pass over the heartbeats of a ``HeartbeatsRead``.
    """

    def __init__(self, config: ResManConfig | None = None) -> None:
        self.config = config or ResManConfig()
        self.state = ResManState(self.config)
        self._begin()

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        """Tables by name; ``cluster`` has a row only in safe mode."""
        return self.state.tables

    @property
    def safe_mode(self) -> Reason | None:
        """Why ResMan is in safe mode, or None."""
        return self._safe_mode.reason

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership with the tables as they were loaded."""
        self.state.begin(epoch, now_s)
        self._begin()

    def recover(self, now_s: float) -> None:
        """Continue after a step that raised, as if its events had not come; see ``ResManState.recover``."""
        self.state.recover(now_s)
        self._safe_mode.recover()
        self._replace_lost.recover()
        self._loads = AgentLoads(self.state)
        self._accounts.recover()
        self._leaving = Leaving(self.state)

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Apply ``events``, place what waits, and return what to send to agents and AppMaster."""
        state = self.state
        state.begin_step(now_s)
        liveness_terms.begin_step(state)
        self._safe_mode.begin_step()
        self._replace_lost.begin_step()
        for event in events:
            self._apply(event)
        state.cause = timer_cause("step")
        reset_old_failures(state)
        more_lost = self.safe_mode is None and self._replace_lost.step()
        due = pop_due_and_give_up(state)
        for key in state.retry_timers.pop(state.now_s):
            row = state.containers.get(key)
            if row is not None:
                state.want_place(row.group)
        more_to_place = place_waiting(state, self.safe_mode)
        more_leaving = self._leaving.step(safe=self.safe_mode is not None)
        due += pop_due(state)
        remove_ended(state)
        sends = self._messages.orders(due, safe=self.safe_mode is not None)
        sends += self._messages.statuses(self._lasting_safe_mode())
        more_loads = self._loads.step()
        self._accounts.begin_step()
        more_usage = self._measured.step()
        more_usage = self._accounts.step() or more_usage
        wake_s = self._wake_s(
            more_to_place=more_to_place or more_leaving,
            more_lost=more_lost,
            more_to_record=more_loads or more_usage,
        )
        return Step(
            sends=tuple(sends),
            replies=tuple(state.requests.replies),
            trace=tuple(state.outbox.trace),
            forget=tuple(state.outbox.forget),
            wake_s=wake_s,
        )

    def _lasting_safe_mode(self) -> Reason | None:
        """Return why ResMan is in safe mode, unless it has only just begun to lead.

        Pods that are about to leave their agents at that moment must not be started again for it.
        """
        reason = self.safe_mode
        return None if reason is None or reason.code == "start" else reason

    def _begin(self) -> None:
        self._safe_mode = SafeMode(self.state)
        self._replace_lost = ReplaceLost(self.state)
        self._messages = StepMessages(self.state)
        self._loads = AgentLoads(self.state)
        self._accounts = Accounts(self.state)
        self._measured = MeasuredUsage(self.state, self._accounts)
        self._leaving = Leaving(self.state)

    def _apply(self, event: Any) -> None:
        state = self.state
        match event:
            case Request():
                state.cause = request_cause(event.key)
                requests.handle(ResManContext(state=state, safe_mode=self._safe_mode), event)
            case GroupOrders():
                if event.liveness is not None:
                    liveness_terms.on_echo(state, event.liveness)
                if event.identity is not None:
                    state.cause = f"identity:{event.identity.epoch}.{event.identity.serial}"
                    state.apply_identity(event.identity)
                for order in event.orders:
                    state.cause = f"order:{order.group}:{order.epoch}.{order.serial}"
                    apply_order(state, order)
            case AgentReport():
                state.cause = report_cause(event.agent, event.serial)
                on_report(state, event)
            case MetersRead():
                self._measured.read(event.samples)
            case HeartbeatsRead():
                state.cause = timer_cause("heartbeats")
                on_heartbeats(state, self._safe_mode, event)
                self._accounts.clock.read(event.now_s, state.now_s)
                self._leaving.on_heartbeats()

    def _wake_s(self, *, more_to_place: bool, more_lost: bool, more_to_record: bool) -> float | None:
        state = self.state
        if more_to_place:
            return state.now_s
        times = [state.now_s + MORE_LOST_S] if more_lost else []
        times += [state.now_s + MORE_RECORDS_S] if more_to_record else []
        times += [
            at_s
            for at_s in (state.unacknowledged.next_s(), state.retry_timers.next_s(), self._leaving.next_s())
            if at_s is not None
        ]
        return min(times, default=None)
