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
from galaxy.model.api.operations import Request
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
        self.ledger = AppMasterState(self.config)
        self.agents = AgentReports(self.config.resend_first_s * 2, self.config.resend_max_s)

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self.ledger.tables

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership: every job is looked at, everything unsettled is sent again."""
        self._begin(epoch, now_s)

    def recover(self, now_s: float) -> None:
        """Begin the leadership anew: nothing outside of tables is to be trusted."""
        self._begin(self.ledger.epoch, now_s)

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Take in ``events``, then bring every job that they or time touched closer to its wish."""
        ledger = self.ledger
        ledger.now_s = now_s
        ledger.clear_outbox()
        for event in events:
            self._take(event)
        for kind, key in ledger.timers.take(now_s):
            self._due(kind, key)
        self._settle()
        step = Step(
            sends=(*self._group_sends(), *self._pod_sends(), *ledger.sends),
            replies=tuple(ledger.replies),
            trace=tuple(ledger.traces),
            wake_s=ledger.timers.next_s(),
        )
        ledger.clear_outbox()
        return step

    def _begin(self, epoch: int, now_s: float) -> None:
        ledger = self.ledger
        ledger.begin(epoch, now_s)
        self.agents = AgentReports(self.config.resend_first_s * 2, self.config.resend_max_s)
        self._mend()
        users.begin(ledger)
        quotas.begin(ledger)
        for job in list(ledger.jobs.values()):
            ledger.touch(job.job)
            if job.wish is not DesiredState.REMOVE:
                ledger.declare(job)
            if job.serial:
                ledger.timers.at(now_s, "group", job.job)
            if job.state in OVER:
                jobs.expire(ledger, job)
        for pod in list(ledger.pods.values()):
            if pod.found is not None and pod.placed:
                self.agents.recall(pod.agent, pod.found)
            if pod.placed and not pods.acked(pod):
                ledger.timers.at(now_s, "pod", pod.pod)

    def _mend(self) -> None:
        """Drop rows that lack what they refer to; a leader that died may have left such."""
        ledger = self.ledger
        for pod in list(ledger.pods.values()):
            if pod.job not in ledger.jobs:
                ledger.pods.drop(pod.pod)
        for key in [key for key in ledger.sealed if key not in ledger.revisions]:
            ledger.sealed.drop(key)
        for key in list(ledger.endpoints):
            if ledger.endpoints[key].pod not in ledger.pods:
                ledger.endpoints.drop(key)

    # ---- events

    def _take(self, event: object) -> None:
        match event:
            case Request():
                requests.handle(self.ledger, event)
                self._settle()  # A later event may ask about what this one began.
            case GroupStatuses():
                if event.quotas is not None:
                    quotas.take(self.ledger, event.quotas)
                for status in event.statuses:
                    groups.take(self.ledger, self.agents, status)
            case AgentReport():
                self._report(event)
            case HeartbeatsRead():
                self._beats(event)
            case UsageRead():
                known = self.ledger.pods
                self.ledger.usage.update((pod, used) for pod, used in event.pods.items() if pod in known)
            case _:
                pass

    def _report(self, report: AgentReport) -> None:
        for found in self.agents.take(report, self.ledger.now_s):
            pods.observe(self.ledger, report.agent, found)
        if report.full:
            for pod in self.agents.absent(report):
                pods.vanish(self.ledger, report.agent, pod)

    def _beats(self, seen: HeartbeatsRead) -> None:
        ledger = self.ledger
        beating = set()
        for beat in seen.beats:
            age_s = max(0.0, seen.now_s - beat.at_s)
            beating.add(beat.agent)
            differs = self.agents.differs(beat, age_s, ledger.now_s, self.config.digest_settle_s)
            if differs and age_s < self.config.beat_old_s:
                ledger.report_asks[beat.agent] = None
        self.agents.keep_only(beating, (str(agent) for agent in ledger.pods.filed("agent")))

    def _due(self, kind: str, key: str) -> None:
        ledger = self.ledger
        job = ledger.jobs.get(key)
        if kind == "job":
            ledger.touch(key)
        elif kind == "group" and job is not None:
            groups.send(ledger, job)
        elif kind == "ended" and job is not None and job.state in OVER:
            jobs.remove(ledger, job)
        elif kind == "quota":
            quotas.due(ledger)
        elif kind == "pod":
            pod = ledger.pods.get(key)
            if pod is None or not pod.placed or pods.acked(pod):
                ledger.order_backoff.forget(key)
            elif self.agents.silent_s(pod.agent, ledger.now_s) > self.config.beat_old_s:
                ledger.timers.at(ledger.now_s + self.config.resend_max_s, "pod", key)
            else:
                pods.send(ledger, pod)

    def _settle(self) -> None:
        ledger = self.ledger
        for _ in range(PASSES_MAX):
            touched, ledger.touched = ledger.touched, {}
            if not touched:
                return
            for job, changed in touched.items():
                jobs.settle(ledger, self.agents, job, changed)
        for job in ledger.touched:
            ledger.timers.at(ledger.now_s, "job", job)
        ledger.touched = {}

    # ---- what goes out: one message a host, unless it would be too long

    def _group_sends(self) -> list[Send]:
        orders = list(self.ledger.group_orders.values())
        told = quotas.order(self.ledger)
        parts = _parts(orders, self.config.orders_per_message)
        return [
            Send(
                queue=RESMAN,
                task=GROUP_APPLY,
                body=GroupOrders(orders=tuple(part), quotas=told),
                id=self.ledger.message_id("groups", RESMAN),
            )
            for part in parts or ([[]] if self.ledger.quotas_due else [])
        ]

    def _until_s(self, agent: str) -> float:
        """Return until when, by Redis' clock, an order for ``agent`` counts; 0 when it never beat.

        It must be void before ResMan can take a silent agent for dead and have its pods run,
        and finish, elsewhere: or the agent would begin them again when it comes back.
        """
        beat_s = self.agents.beat_redis_s(agent)
        return beat_s + self.config.order_life_s if beat_s else 0.0

    def _pod_sends(self) -> list[Send]:
        ledger = self.ledger
        sends = []
        for agent in dict.fromkeys((*ledger.pod_orders, *ledger.report_asks)):
            rows = (ledger.pods.get(key) for key in ledger.pod_orders.get(agent, ()))
            orders = [
                pods.build_order(ledger, pod) for pod in rows if pod and pod.placed and pod.agent == agent
            ]
            report = agent in ledger.report_asks
            for part in _parts(orders, self.config.orders_per_message) or ([[]] if report else []):
                body = PodOrders(
                    agent=agent,
                    epoch=ledger.epoch,
                    orders=tuple(part),
                    report=report,
                    until_s=self._until_s(agent),
                )
                report = False
                sends.append(
                    Send(
                        queue=appworker_queue(agent),
                        task=POD_DEPLOY,
                        body=body,
                        id=ledger.message_id("pods", agent),
                    )
                )
                self.agents.told(agent, ledger.now_s)
        return sends


def _parts(items: list[Any], most: int) -> list[list[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
