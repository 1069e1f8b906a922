"""AppMaster's logic: events in, tables changed, orders and answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.api import requests
from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.identity import quotas, users
from galaxy.appmaster.logic.jobs import groups, jobs, pods
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.request import Request
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead, UsageRead
from galaxy.model.messages.container import GroupOrders, GroupStatuses
from galaxy.model.messages.names import GROUP_APPLY, POD_DEPLOY, RESMAN, appworker_queue
from galaxy.model.messages.pod import PodOrders
from galaxy.model.step import Send, Step
from galaxy.model.stored.job import OVER, DesiredState
from galaxy.model.stored.table import Table

PASSES_MAX: Final = 4
"""How often one job is looked at in one step; what is left then comes with the next one."""


class AppMaster:
    """The pure half of AppMaster; see ``galaxy.model.step.Logic``.

    Events: ``Request`` with its body decoded, ``GroupStatuses``, ``AgentReport`` with pods, and
    ``HeartbeatsRead``. Everything else is ignored.
    """

    def __init__(self, config: AppMasterConfig | None = None) -> None:
        self.config = config or AppMasterConfig()
        self.state = AppMasterState(self.config)
        self.agents = AgentReports(self.config.resend_first_s * 2, self.config.resend_max_s)

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self.state.tables

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership: every job is looked at, everything unsettled is sent again."""
        self._begin(epoch, now_s)

    def recover(self, now_s: float) -> None:
        """Begin the leadership anew: nothing outside of tables is to be trusted."""
        self._begin(self.state.epoch, now_s)

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Take in ``events``, then bring every job that they or time touched closer to its wish."""
        state = self.state
        state.now_s = now_s
        state.clear_outbox()
        for event in events:
            self._take(event)
        for kind, key in state.timers.pop_due(now_s):
            self._due(kind, key)
        self._settle()
        step = Step(
            sends=(*self._group_sends(), *self._pod_sends(), *state.sends),
            replies=tuple(state.requests.replies),
            trace=tuple(state.traces),
            wake_s=state.timers.next_s(),
        )
        state.clear_outbox()
        return step

    def _begin(self, epoch: int, now_s: float) -> None:
        state = self.state
        state.begin(epoch, now_s)
        self.agents = AgentReports(self.config.resend_first_s * 2, self.config.resend_max_s)
        self._mend()
        users.begin(state)
        quotas.begin(state)
        for job in list(state.jobs.values()):
            state.touch(job.job)
            if job.desired is not DesiredState.REMOVE:
                state.add_services(job)
            if job.serial:
                state.timers.at(("group", job.job), now_s)
            if job.state in OVER:
                jobs.expire(state, job)
        for pod in list(state.pods.values()):
            if pod.observed is not None and pod.placed:
                self.agents.recall(pod.agent, pod.observed)
            if pod.placed and not pods.is_acked(pod):
                state.timers.at(("pod", pod.pod), now_s)

    def _mend(self) -> None:
        """Drop rows that lack what they refer to; a leader that died may have left such."""
        state = self.state
        for pod in list(state.pods.values()):
            if pod.job not in state.jobs:
                state.pods.drop(pod.pod)
        for key in [key for key in state.revision_secrets if key not in state.revisions]:
            state.revision_secrets.drop(key)
        for key in list(state.endpoints):
            if state.endpoints[key].pod not in state.pods:
                state.endpoints.drop(key)

    # ---- events

    def _take(self, event: object) -> None:
        match event:
            case Request():
                requests.handle(self.state, event)
                self._settle()  # A later event may ask about what this one began.
            case GroupStatuses():
                if event.quotas is not None:
                    quotas.take(self.state, event.quotas)
                for status in event.statuses:
                    groups.on_status(self.state, self.agents, status)
            case AgentReport():
                self._report(event)
            case HeartbeatsRead():
                self._beats(event)
            case UsageRead():
                known = self.state.pods
                self.state.usage.update((pod, used) for pod, used in event.pods.items() if pod in known)
            case _:
                pass

    def _report(self, report: AgentReport) -> None:
        for found in self.agents.take(report, self.state.now_s):
            pods.on_report(self.state, report.agent, found)
        if report.full:
            for pod in self.agents.absent(report):
                pods.on_missing(self.state, report.agent, pod)

    def _beats(self, seen: HeartbeatsRead) -> None:
        state = self.state
        beating = set()
        for beat in seen.beats:
            age_s = max(0.0, seen.now_s - beat.at_s)
            beating.add(beat.agent)
            for pod in state.unsent.pop(beat.agent, ()) if state.unsent else ():
                state.pod_orders.setdefault(beat.agent, {})[pod] = None
            differs = self.agents.differs(beat, age_s, state.now_s, self.config.digest_settle_s)
            if differs and age_s < self.config.heartbeat_age_max_s:
                state.report_asks[beat.agent] = None
        # Pods that were moved away meanwhile no longer wait for this agent's heartbeat.
        state.unsent = {name: pods for name, pods in state.unsent.items() if state.pods.count("agent", name)}
        self.agents.keep_only(beating, (str(agent) for agent in state.pods.filed("agent")))

    def _due(self, kind: str, key: str) -> None:
        state = self.state
        job = state.jobs.get(key)
        if kind == "job":
            state.touch(key)
        elif kind == "group" and job is not None:
            groups.send(state, job)
        elif kind == "ended" and job is not None and job.state in OVER:
            jobs.remove(state, job)
        elif kind == "quota":
            quotas.due(state)
        elif kind == "pod":
            pod = state.pods.get(key)
            if pod is None or not pod.placed or pods.is_acked(pod):
                state.order_backoff.reset(key)
            elif self.agents.silent_s(pod.agent, state.now_s) > self.config.heartbeat_age_max_s:
                state.timers.at(("pod", key), state.now_s + self.config.resend_max_s)
            else:
                pods.send(state, pod)

    def _settle(self) -> None:
        state = self.state
        for _ in range(PASSES_MAX):
            touched, state.touched = state.touched, {}
            if not touched:
                return
            for job, changed in touched.items():
                jobs.reconcile(state, self.agents, job, changed)
        for job in state.touched:
            state.timers.at(("job", job), state.now_s)
        state.touched = {}

    # ---- what goes out: one message a host, unless it would be too long

    def _group_sends(self) -> list[Send]:
        orders = list(self.state.group_orders.values())
        told = quotas.order(self.state)
        parts = _parts(orders, self.config.orders_per_message_max)
        return [
            Send(
                queue=RESMAN,
                task=GROUP_APPLY,
                body=GroupOrders(orders=tuple(part), quotas=told),
                id=self.state.message_id("groups", RESMAN),
            )
            for part in parts or ([[]] if self.state.quotas_to_send else [])
        ]

    def _until_s(self, agent: str) -> float:
        """Return Redis' clock at which an order to ``agent`` expires.

        That is before ResMan can declare a silent agent dead and have its pods run, and finish,
        elsewhere: or the agent would start them again when it comes back. 0.0 while no heartbeat of
        ``agent`` was read in this leadership: then it gets no order until one is.
        """
        beat_s = self.agents.beat_redis_s(agent)
        return beat_s + self.config.order_ttl_s if beat_s else 0.0

    def _pod_sends(self) -> list[Send]:
        state = self.state
        sends = []
        for agent in dict.fromkeys((*state.pod_orders, *state.report_asks)):
            until_s = self._until_s(agent)
            if not until_s and agent in state.pod_orders:
                state.unsent.setdefault(agent, {}).update(state.pod_orders.pop(agent))
                if agent not in state.report_asks:
                    continue
            rows = (state.pods.get(key) for key in state.pod_orders.get(agent, ()))
            orders = [
                pods.build_order(state, pod) for pod in rows if pod and pod.placed and pod.agent == agent
            ]
            report = agent in state.report_asks
            for part in _parts(orders, self.config.orders_per_message_max) or ([[]] if report else []):
                body = PodOrders(
                    agent=agent,
                    epoch=state.epoch,
                    orders=tuple(part),
                    report=report,
                    until_s=until_s,
                )
                report = False
                sends.append(
                    Send(
                        queue=appworker_queue(agent),
                        task=POD_DEPLOY,
                        body=body,
                        id=state.message_id("pods", agent),
                    )
                )
                self.agents.told(agent, state.now_s)
        return sends


def _parts(items: list[Any], most: int) -> list[list[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
