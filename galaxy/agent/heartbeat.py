"""The agent's heartbeat: written directly to Redis by a thread that waits for nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from galaxy.agent.inventory import UsageSampler
from galaxy.model.messages.agent import AgentUsage, MeterSample

_LOG: Final = logging.getLogger(__name__)
STUCK_S: Final = 30.0
"""A loop that has handled nothing for this long is stuck."""
CLOCK_STEP_S: Final = 0.25
"""Redis' clock is reported when it has moved by more than this against the monotonic clock."""


class HeartbeatSink(Protocol):
    """The part of ``galaxy.nexus.nexus.Nexus`` that heartbeats use."""

    def send_heartbeat(
        self,
        agent: str,
        *,
        boot: str,
        containers: int = ...,
        pods: int = ...,
        usage: AgentUsage | None = ...,
        meters: MeterSample | None = ...,
        trouble: str = ...,
        leaving: bool = ...,
    ) -> float: ...


class HeartbeatThread:
    """Sends a heartbeat every ``heartbeat_s`` seconds with the current digests.

    Every ``usage_s`` seconds a heartbeat carries a usage sample and the meters of containers. ``clock``
    receives Redis' clock whenever it has moved. While the loop is stuck no heartbeat is sent, so that
    the agent is declared dead.
    """

    def __init__(
        self,
        nexus: HeartbeatSink,
        sampler: UsageSampler,
        *,
        agent: str,
        boot: str,
        heartbeat_s: float,
        usage_s: float,
        digests: Callable[[], tuple[int, int]],
        stuck_s: Callable[[], float],
        pods: Callable[[], dict[str, tuple[int, int]]],
        trouble: Callable[[], str],
        meters: Callable[[], MeterSample | None],
        clock: Callable[[float], None],
    ) -> None:
        self._nexus = nexus
        self._sampler = sampler
        self._agent = agent
        self._boot = boot
        self._heartbeat_s = heartbeat_s
        self._usage_s = usage_s
        self._digests = digests
        self._stuck_s = stuck_s
        self._pods = pods
        self._trouble = trouble
        self._meters = meters
        self._clock = clock
        self._redis_ahead_s = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-heartbeat", daemon=True)
        self._failing = ""
        self._leaving = False

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Announce from now on that the agent is being stopped, so that its host gets nothing more."""
        self._leaving = True
        self._send_last()

    def stop(self, timeout_s: float) -> None:
        """Stop sending; the last heartbeat announces that the agent is leaving."""
        self._leaving = True
        self._ending.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._send_last()

    def _send_last(self) -> None:
        try:
            self._send(None)
        except Exception as error:  # noqa: BLE001 - without it the host becomes suspect later
            self._log_change(f"{type(error).__name__}: {error}")

    def _run(self) -> None:
        next_s = next_usage_s = time.monotonic()
        while not self._ending.wait(max(0.0, next_s - time.monotonic())):
            now_s = time.monotonic()
            # Heartbeats that were missed are skipped, not sent in a burst.
            next_s = max(next_s + self._heartbeat_s, now_s)
            sample = now_s >= next_usage_s
            next_usage_s = now_s + self._usage_s if sample else next_usage_s
            try:
                self._send(self._sampler.sample(self._pods()) if sample else None)
            except Exception as error:  # noqa: BLE001 - without heartbeats the host loses its containers
                self._log_change(f"{type(error).__name__}: {error}")

    def _send(self, usage: AgentUsage | None) -> None:
        if self._stuck_s() > STUCK_S:
            self._log_change("the agent's loop is stuck")
            return
        containers, pods = self._digests()
        redis_s = self._nexus.send_heartbeat(
            self._agent,
            boot=self._boot,
            containers=containers,
            pods=pods,
            usage=usage,
            meters=self._meters() if usage is not None or self._leaving else None,
            trouble=self._trouble(),
            leaving=self._leaving,
        )
        self._log_change("")
        ahead_s = redis_s - time.monotonic()
        if abs(ahead_s - self._redis_ahead_s) > CLOCK_STEP_S:
            self._redis_ahead_s = ahead_s
            self._clock(redis_s)

    def _log_change(self, cause: str) -> None:
        """Log the first failure and the first success after failures. Empty ``cause`` is a success."""
        if cause and not self._failing:
            _LOG.warning("event=heartbeat.failed cause=%r", cause)
        elif self._failing and not cause:
            _LOG.info("event=heartbeat.resumed")
        self._failing = cause
