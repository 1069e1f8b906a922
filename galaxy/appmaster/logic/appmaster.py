"""AppMaster's logic: events in, changed tables, orders and answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from galaxy.appmaster.logic import step_messages
from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.api import packages, requests
from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.identity import identity_sync, users
from galaxy.appmaster.logic.job_sums import count_committed, count_written
from galaxy.appmaster.logic.jobs import groups, jobs, moves, pod_reports, pods
from galaxy.appmaster.logic.outbox import Outbox
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.request import Request
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead, UsageRead
from galaxy.model.messages.container import GroupStatuses
from galaxy.model.messages.liveness import order_ttl_s
from galaxy.model.messages.trace import group_status_cause, report_cause, request_cause, timer_cause
from galaxy.model.step import Step
from galaxy.model.stored.job import PodRecord
from galaxy.model.stored.table import Table

PASSES_MAX: Final = 4
"""How often one job is reconciled in one step; the rest is done in the next step."""


class AppMaster:
    """The service layer's leader, as a ``galaxy.model.step.Logic``.

    Events are ``Request`` with its body decoded, ``GroupStatuses``, ``AgentReport`` with pods,
    ``HeartbeatsRead`` and ``UsageRead``. All others are ignored.
    """

    def __init__(self, config: AppMasterConfig | None = None) -> None:
        self.config = config or AppMasterConfig()
        self.state = AppMasterState(self.config)
        self.agents = AgentReports(self.config)
        self._unreconciled: deque[str] = deque()
        """Jobs that this leadership has not reconciled yet."""

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self.state.tables

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership: reconcile every job, and resend orders that are not acknowledged."""
        self._derive(epoch, now_s)

    def recover(self, now_s: float) -> None:
        """Continue after a step that raised: only the tables are trusted."""
        self.state.requests.nonces.discard()
        self._derive(self.state.epoch, now_s)

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Apply ``events``, then reconcile every job that they or a due timer touched."""
        state = self.state
        state.begin_step(now_s)
        self._clear_output()
        for event in events:
            self._apply(event)
        for kind, key in state.timers.pop_due(now_s):
            state.cause = timer_cause(kind)
            self._on_timer(kind, key)
        self._touch_unreconciled()
        self._reconcile()
        count_written(state)
        sends = (
            *step_messages.group_messages(state),
            *step_messages.pod_messages(state, self.agents),
            *state.outbox.sends,
        )
        step = Step(
            sends=sends,
            replies=tuple(state.requests.replies),
            trace=tuple(state.outbox.trace),
            wake_s=now_s if state.awaiting_order or self._unreconciled else state.timers.next_s(),
        )
        self._clear_output()
        return step

    def _clear_output(self) -> None:
        self.state.outbox = Outbox()
        self.state.requests.replies = []

    def _derive(self, epoch: int, now_s: float) -> None:
        """Rebuild all volatile state from the tables, and schedule everything that may be due."""
        state = self.state
        state.repair()
        state.derive(epoch, now_s)
        count_committed(state)
        self.agents = AgentReports(self.config)
        users.begin(state)
        identity_sync.begin(state)
        packages.begin(state)
        self._unreconciled = deque(state.jobs)
        for job in list(state.jobs.values()):
            if job.serial:
                state.timers.set_if_sooner(("group", job.job), now_s)
            if job.state.is_over:
                jobs.schedule_removal(state, job)

    # ---- events

    def _apply(self, event: object) -> None:
        state = self.state
        match event:
            case Request():
                state.cause = request_cause(event.key)
                requests.handle(state, event)
                self._reconcile()  # A later request in this step may ask about the result.
            case GroupStatuses():
                if event.liveness is not None:
                    state.apply_liveness(event.liveness)
                if event.identity is not None:
                    identity_sync.on_ack(state, event.identity)
                for status in event.statuses:
                    state.cause = group_status_cause(status.group, status.epoch, status.version)
                    groups.on_status(state, self.agents, status)
            case AgentReport():
                state.cause = report_cause(event.agent, event.serial)
                self._on_report(event)
            case HeartbeatsRead():
                self._on_heartbeats(event)
            case UsageRead():
                pod_reports.on_usage(state, event)
            case _:
                pass

    def _on_report(self, report: AgentReport) -> None:
        for observed in self.agents.apply(report, self.state.now_s):
            pod_reports.on_report(self.state, self.agents, report.agent, observed)
        if report.full:
            for pod in self.agents.remove_missing(report):
                pod_reports.on_missing(self.state, report.agent, pod)

    def _on_heartbeats(self, read: HeartbeatsRead) -> None:
        state = self.state
        self.agents.set_unread(read.unread)
        alive = set()
        begun = self.agents.any_alive
        dead_s = state.dead_s
        ttl_s = order_ttl_s(dead_s)
        for heartbeat in read.heartbeats:
            agent, age_s = heartbeat.agent, max(0.0, read.now_s - heartbeat.at_s)
            alive.add(agent)
            if age_s < ttl_s <= self.agents.silent_s(agent, state.now_s):
                self._on_return(agent)
            for pod in state.unsent.pop(agent, ()) if state.unsent else ():
                state.outbox.pod_orders.setdefault(agent, {})[pod] = None
            if age_s < dead_s <= self.agents.absent_s(agent, state.now_s):
                moves.on_first_heartbeat(state, agent, joined=begun)
            ask = self.agents.on_heartbeat(heartbeat, age_s, state.now_s)
            if ask and age_s < dead_s:
                state.outbox.report_requests[agent] = None
        # Orders do not wait for the heartbeat of an agent that has no pods any more.
        state.unsent = {name: pods for name, pods in state.unsent.items() if state.pods.count("agent", name)}
        self.agents.keep_only(alive, (str(agent) for agent in state.pods.index_values("agent")))

    def _on_return(self, agent: str) -> None:
        """Send the orders to ``agent`` again that are not acknowledged: in its silence all have expired."""
        state = self.state
        for key in state.pods.where("agent", agent):
            pod = state.pods[key]
            if pod.placed and not pods.is_acked(pod):
                state.order_backoff.reset(key)
                state.timers.set_if_sooner(("pod", key), state.now_s)

    def _on_timer(self, kind: str, key: str) -> None:
        state = self.state
        job = state.jobs.get(key)
        if kind == "job":
            state.touch(key)
        elif kind == "group" and job is not None:
            groups.send(state, job)
        elif kind == "ended" and job is not None and job.state.is_over:
            jobs.remove(state, job)
        elif kind == identity_sync.TIMER:
            identity_sync.on_timer(state)
        elif kind == packages.TIMER:
            packages.on_timer(state)
        elif kind == moves.TIMER:
            moves.on_timer(state, self.agents)
        elif kind == "pod":
            self._resend(key)

    def _resend(self, pod_id: str) -> None:
        """Send the order of a pod again, unless it is acknowledged.

        It waits while the agent is silent or has an unread report, which may acknowledge it. Beyond a limit
        all wait: then many acknowledgements are due, and are probably not read yet.
        """
        state = self.state
        pod = state.pods.get(pod_id)
        if pod is None or not pod.placed or pods.is_acked(pod):
            state.order_backoff.reset(pod_id)
        elif self.agents.silent_s(pod.agent, state.now_s) > state.dead_s:
            state.timers.set_if_sooner(("pod", pod_id), state.now_s + self.config.resend_s_max)
        elif state.resends_left <= 0 or self.agents.has_unread(pod.agent):
            state.timers.set_if_sooner(("pod", pod_id), state.now_s + self.config.resend_first_s)
        else:
            state.resends_left -= 1
            pods.send(state, pod)

    def _touch_unreconciled(self) -> None:
        """Touch the next jobs that this leadership has not reconciled yet, and resume their pods."""
        state, left = self.state, self.config.begin_pods_max
        while self._unreconciled and left > 0:
            job = self._unreconciled.popleft()
            keys = state.pods.where("job", job)
            left -= 1 + len(keys)
            for key in keys:
                self._resume(state.pods[key])
            state.cause = timer_cause("begin")
            state.touch(job)
        if not self._unreconciled:
            self.agents.compare_digests()

    def _resume(self, pod: PodRecord) -> None:
        """Take up the last report of a pod, and its order if that was not acknowledged."""
        if not pod.placed:
            return
        if pod.observed is not None:
            self.agents.restore(pod.agent, pod.observed)
        if not pods.is_acked(pod):
            self.state.timers.set_if_sooner(("pod", pod.pod), self.state.now_s)

    def _reconcile(self) -> None:
        """Reconcile touched jobs and order pods until nothing is left, at most ``PASSES_MAX`` times."""
        state = self.state
        for _ in range(PASSES_MAX):
            touched = state.take_touched()
            for job, change in touched.items():
                state.cause = change.cause
                jobs.reconcile(state, self.agents, job, change.pods)
            if not jobs.order_in_turn(state) and not state.touched:
                return
        for job in state.take_touched():
            state.timers.set_if_sooner(("job", job), state.now_s)
