"""The heartbeat: straight into Redis, in a thread of its own that waits for nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from galaxy.agent.inventory import UsageSampler
from galaxy.model.messages.agent import AgentUsage

_LOG: Final = logging.getLogger(__name__)
STUCK_S: Final = 30.0
CLOCK_STEP_S: Final = 0.25
"""The loop is told of Redis' clock when it has moved by more than this against ours."""


class HeartbeatSink(Protocol):
    """What is used of ``galaxy.nexus.nexus.Nexus``."""

    def beat(
        self,
        agent: str,
        *,
        boot: str,
        containers: int = ...,
        pods: int = ...,
        usage: AgentUsage | None = ...,
        trouble: str = ...,
    ) -> float: ...


class HeartbeatThread:
    """Beats every ``beat_s`` seconds with the digests of the moment, now and then with a usage sample.

    ``clock`` is told what Redis' clock showed, when that is news.

    A loop that has been stuck for ``STUCK_S`` is not alive, and nobody is told that it is.
    """

    def __init__(
        self,
        nexus: HeartbeatSink,
        sampler: UsageSampler,
        *,
        agent: str,
        boot: str,
        beat_s: float,
        usage_s: float,
        digests: Callable[[], tuple[int, int]],
        stuck_s: Callable[[], float],
        pods: Callable[[], dict[str, tuple[int, int]]],
        trouble: Callable[[], str],
        clock: Callable[[float], None],
    ) -> None:
        self._nexus = nexus
        self._sampler = sampler
        self._agent = agent
        self._boot = boot
        self._beat_s = beat_s
        self._usage_s = usage_s
        self._digests = digests
        self._stuck_s = stuck_s
        self._pods = pods
        self._trouble = trouble
        self._clock = clock
        self._ahead_s = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-beat", daemon=True)
        self._failing = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._ending.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        next_s = next_usage_s = time.monotonic()
        while not self._ending.wait(max(0.0, next_s - time.monotonic())):
            now_s = time.monotonic()
            # A beat that took long is not made up for: the next one keeps its distance.
            next_s = max(next_s + self._beat_s, now_s)
            sample = now_s >= next_usage_s
            next_usage_s = now_s + self._usage_s if sample else next_usage_s
            try:
                self._beat(self._sampler.sample(self._pods()) if sample else None)
            except Exception as error:  # noqa: BLE001 - a heart that stops costs the host its containers
                self._tell(f"{type(error).__name__}: {error}")

    def _beat(self, usage: AgentUsage | None) -> None:
        if self._stuck_s() > STUCK_S:
            self._tell("the agent's loop is stuck")
            return
        containers, pods = self._digests()
        redis_s = self._nexus.beat(
            self._agent,
            boot=self._boot,
            containers=containers,
            pods=pods,
            usage=usage,
            trouble=self._trouble(),
        )
        self._tell("")
        ahead_s = redis_s - time.monotonic()
        if abs(ahead_s - self._ahead_s) > CLOCK_STEP_S:
            self._ahead_s = ahead_s
            self._clock(redis_s)

    def _tell(self, cause: str) -> None:
        """Log a change for the worse or the better, once."""
        if cause and not self._failing:
            _LOG.warning("event=beat.failed cause=%r", cause)
        elif self._failing and not cause:
            _LOG.info("event=beat.resumed")
        self._failing = cause
