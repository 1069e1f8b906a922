"""The pods that agents report: digests, late reports, and when to ask for a full report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.model.messages.agent import AgentReport, Heartbeat
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.pod import ObservedPod
from galaxy.statemachine.backoff import AskLimiter

PAST_BOOTS_MAX: Final = 8


class AgentReports:
    """All agents that send reports or heartbeats. Volatile: rebuilt from the last reports of pods.

    The digest of the pods that an agent reported is compared with the digest in its heartbeats. If they
    differ for longer than a report takes to arrive, a report was lost.
    """

    def __init__(self, config: AppMasterConfig) -> None:
        self._config = config
        self._agents: dict[str, ReportingAgent] = {}
        self._unread: set[str] = set()
        self._compares = False
        self._ask_limiter = AskLimiter(2 * config.resend_first_s, config.resend_s_max)

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def restore(self, agent: str, observed: ObservedPod) -> None:
        """Restore a report that an earlier leadership stored, unless a later one was applied."""
        known = self._of(agent)
        if observed.pod not in known.digests:
            known.set_digest(observed.pod, _digest(observed))

    def compare_digests(self) -> None:
        """Compare digests from now on: every stored report is restored."""
        self._compares = True

    def apply(self, report: AgentReport, now_s: float) -> Iterable[ObservedPod]:
        """Apply a report, and yield its pods except where a later report of the pod was applied.

        A report of an earlier boot of the agent yields nothing.
        """
        self._unread.discard(report.agent)
        agent = self._of(report.agent)
        if report.boot in agent.past_boots:
            return
        agent.switch_boot(report.boot)
        agent.changed_s = now_s
        for observed in report.pods:
            if agent.serials.get(observed.pod, -1) <= report.serial:
                agent.serials[observed.pod] = report.serial
                agent.set_digest(observed.pod, _digest(observed))
                yield observed

    def remove_missing(self, report: AgentReport) -> tuple[str, ...]:
        """Remove and return the pods that a full report omits, unless a later report has them."""
        agent = self._of(report.agent)
        if report.boot != agent.boot:
            return ()
        named = {observed.pod for observed in report.pods}
        missing = [
            pod for pod in agent.digests if pod not in named and agent.serials.get(pod, -1) <= report.serial
        ]
        for pod in missing:
            agent.set_digest(pod, 0)
        return tuple(missing)

    def remove_pod(self, agent: str, pod: str) -> None:
        """Drop the report of ``pod``, whose container on ``agent`` is gone."""
        if agent in self._agents:
            self._agents[agent].set_digest(pod, 0)

    def on_sent(self, agent: str, now_s: float) -> None:
        """Record that something was sent to ``agent``, so that its pods are about to change."""
        self._of(agent).changed_s = now_s

    def set_unread(self, agents: Iterable[str]) -> None:
        """Set the agents with a report that is not applied yet; they are asked for nothing."""
        self._unread = set(agents)

    def has_unread(self, agent: str) -> bool:
        """Return whether a report of ``agent`` was not applied yet when heartbeats were read last."""
        return agent in self._unread

    def on_heartbeat(self, heartbeat: Heartbeat, age_s: float, now_s: float) -> bool:
        """Apply a heartbeat; return whether to ask its agent for a full report."""
        agent = self._of(heartbeat.agent)
        agent.heartbeat_s = now_s - age_s
        agent.heartbeat_redis_s = heartbeat.at_s
        agent.switch_boot(heartbeat.boot)  # A heartbeat is never late; a report may be of an earlier boot.
        if heartbeat.pods == agent.digest:
            self._ask_limiter.reset(heartbeat.agent)
            return False
        if (
            not self._compares
            or heartbeat.agent in self._unread
            or now_s - agent.changed_s < self._config.digest_settle_s
        ):
            return False
        return self._ask_limiter.due(heartbeat.agent, now_s)

    def silent_s(self, agent: str, now_s: float) -> float:
        """Return the seconds since the last heartbeat of ``agent``; 0 when none was read."""
        known = self._agents.get(agent)
        return 0.0 if known is None or known.heartbeat_s is None else now_s - known.heartbeat_s

    def absent_s(self, agent: str, now_s: float) -> float:
        """Return the same, but infinity when no heartbeat of ``agent`` was read."""
        known = self._agents.get(agent)
        return math.inf if known is None or known.heartbeat_s is None else now_s - known.heartbeat_s

    @property
    def any_alive(self) -> bool:
        """Whether a heartbeat of any agent was read."""
        return any(agent.heartbeat_s is not None for agent in self._agents.values())

    def alive(self, now_s: float, age_s_max: float) -> set[str]:
        """Return the agents whose last heartbeat is not older than ``age_s_max``."""
        return {
            name
            for name, agent in self._agents.items()
            if agent.heartbeat_s is not None and now_s - agent.heartbeat_s <= age_s_max
        }

    def heartbeat_redis_s(self, agent: str) -> float:
        """Return Redis' clock at the last heartbeat of ``agent``; 0 when none was read."""
        known = self._agents.get(agent)
        return 0.0 if known is None else known.heartbeat_redis_s

    def keep_only(self, alive: set[str], with_pods: Iterable[str]) -> None:
        """Drop agents that neither send heartbeats (``alive``) nor have pods (``with_pods``)."""
        if len(self._agents) == len(alive):
            return  # Every agent that sends heartbeats is known by now, so there is none to drop.
        keep = alive.union(with_pods)
        for name in [name for name in self._agents if name not in keep]:
            del self._agents[name]
            self._ask_limiter.reset(name)

    def _of(self, name: str) -> ReportingAgent:
        agent = self._agents.get(name)
        if agent is None:
            agent = self._agents[name] = ReportingAgent()
        return agent


class ReportingAgent:
    """One agent: the digests of its pods, its current boot, and when it last changed.

    ``boot`` is the id of the current agent process; reports of ``past_boots`` are ignored. ``serials``
    has, by pod, the serial of the last report that was applied; each process counts from 0.
    """

    def __init__(self) -> None:
        self.digest = 0
        """XOR of ``digests``."""
        self.digests: dict[str, int] = {}
        self.serials: dict[str, int] = {}
        self.boot = ""
        self.past_boots: dict[str, None] = {}
        self.changed_s = 0.0
        """When a report was last received from it, or an order sent to it."""
        self.heartbeat_s: float | None = None
        self.heartbeat_redis_s = 0.0

    def set_digest(self, pod: str, digest: int) -> None:
        """Set the digest of ``pod``; 0 removes the pod."""
        self.digest ^= self.digests.pop(pod, 0) ^ digest
        if digest:
            self.digests[pod] = digest
        else:
            self.serials.pop(pod, None)

    def switch_boot(self, boot: str) -> None:
        """Make ``boot`` current: reports of the boot before it are ignored from now on."""
        self.past_boots.pop(boot, None)
        if boot == self.boot:
            return
        if self.boot:
            self.past_boots[self.boot] = None
            while len(self.past_boots) > PAST_BOOTS_MAX:
                del self.past_boots[next(iter(self.past_boots))]
        self.boot = boot
        self.serials.clear()


def _digest(observed: ObservedPod) -> int:
    return digest_of_pod(
        observed.pod, observed.incarnation, observed.generation, observed.state, observed.healthy
    )
