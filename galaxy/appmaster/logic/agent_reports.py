"""What agents hold, as far as their reports say: digests, late reports, and when to ask anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from galaxy.model.messages.agent import AgentReport, Heartbeat
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.pod import ObservedPod
from galaxy.statemachine.backoff import AskLimiter

PAST_BOOTS_MAX: Final = 8


class Agent:
    """One agent: its pods' digests, which life of it reports, and when it was last heard or told."""

    def __init__(self) -> None:
        self.digest = 0
        self.folds: dict[str, int] = {}
        self.serials: dict[str, int] = {}
        self.boot = ""
        self.past_boots: dict[str, None] = {}
        self.moved_s = 0.0
        self.beat_s: float | None = None
        self.beat_redis_s = 0.0

    def set(self, pod: str, fold: int) -> None:
        self.digest ^= self.folds.pop(pod, 0) ^ fold
        if fold:
            self.folds[pod] = fold
        else:
            self.serials.pop(pod, None)

    def turn(self, boot: str) -> None:
        """Believe that the agent lives its life ``boot`` now, and no other one any more."""
        self.past_boots.pop(boot, None)
        if boot == self.boot:
            return
        if self.boot:
            self.past_boots[self.boot] = None
            while len(self.past_boots) > PAST_BOOTS_MAX:
                del self.past_boots[next(iter(self.past_boots))]
        self.boot = boot
        self.serials.clear()


class AgentReports:
    """All agents that have reported or have beaten; volatile, rebuilt from the pods' last reports."""

    def __init__(self, ask_first_s: float, ask_max_s: float) -> None:
        self._agents: dict[str, Agent] = {}
        self._asks = AskLimiter(ask_first_s, ask_max_s)

    def recall(self, agent: str, observed: ObservedPod) -> None:
        """Believe a report of an earlier leadership."""
        self._of(agent).set(observed.pod, _fold(observed))

    def take(self, report: AgentReport, now_s: float) -> Iterable[ObservedPod]:
        """Take in a report and give back what is news: nothing of an earlier life of the agent."""
        agent = self._of(report.agent)
        if report.boot in agent.past_boots:
            return
        agent.turn(report.boot)
        agent.moved_s = now_s
        for observed in report.pods:
            if agent.serials.get(observed.pod, -1) <= report.serial:
                agent.serials[observed.pod] = report.serial
                agent.set(observed.pod, _fold(observed))
                yield observed

    def absent(self, report: AgentReport) -> tuple[str, ...]:
        """Return the pods that a full report leaves out, and believe it; later news outweighs it."""
        agent = self._of(report.agent)
        if report.boot != agent.boot:
            return ()
        named = {observed.pod for observed in report.pods}
        gone = [
            pod for pod in agent.folds if pod not in named and agent.serials.get(pod, -1) <= report.serial
        ]
        for pod in gone:
            agent.set(pod, 0)
        return tuple(gone)

    def forget(self, agent: str, pod: str) -> None:
        """The container of ``pod`` on ``agent`` is gone, and so is what was reported of it."""
        if agent in self._agents:
            self._agents[agent].set(pod, 0)

    def told(self, agent: str, now_s: float) -> None:
        """Something was sent to ``agent``: what it holds is about to change."""
        self._of(agent).moved_s = now_s

    def differs(self, beat: Heartbeat, age_s: float, now_s: float, settle_s: float) -> bool:
        """Whether to ask the agent of ``beat`` for everything: its digest is not the one believed."""
        agent = self._of(beat.agent)
        agent.beat_s = now_s - age_s
        agent.beat_redis_s = beat.at_s
        agent.turn(beat.boot)  # A beat is never late: a report may have been of an earlier life.
        if beat.pods == agent.digest:
            self._asks.reset(beat.agent)
            return False
        return now_s - agent.moved_s >= settle_s and self._asks.due(beat.agent, now_s)

    def silent_s(self, agent: str, now_s: float) -> float:
        """Return how long ago ``agent`` beat; 0 when no beat of it was ever seen."""
        known = self._agents.get(agent)
        return 0.0 if known is None or known.beat_s is None else now_s - known.beat_s

    def beat_redis_s(self, agent: str) -> float:
        """Return Redis' clock at the last beat of ``agent``; 0 when none was seen."""
        known = self._agents.get(agent)
        return 0.0 if known is None else known.beat_redis_s

    def keep_only(self, beating: set[str], holding: Iterable[str]) -> None:
        """Forget agents that neither beat nor hold a pod that we know."""
        if len(self._agents) == len(beating):
            return  # All that beat are known by now, so these are all.
        keep = beating.union(holding)
        for name in [name for name in self._agents if name not in keep]:
            del self._agents[name]
            self._asks.reset(name)

    def _of(self, name: str) -> Agent:
        agent = self._agents.get(name)
        if agent is None:
            agent = self._agents[name] = Agent()
        return agent


def _fold(observed: ObservedPod) -> int:
    return digest_of_pod(
        observed.pod, observed.incarnation, observed.generation, observed.state, observed.healthy
    )
