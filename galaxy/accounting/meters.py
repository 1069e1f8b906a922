"""Meters: what each container of a host has used, added up where it is measured.

A meter only grows, so a reader that misses readings, or a new leader, takes the difference from the last one
that it has stored, and loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from galaxy.model.messages.agent import Meter

ENDED_KEPT_S: Final = 300.0
"""How long the meter of a container that has ended is still sent."""
ENDED_MAX: Final = 1000
"""Meters of ended containers that are kept; beyond it the oldest are dropped."""
USED_MAX: Final = 1e24
"""More than any container can use between two readings: a terabyte for thirty thousand years."""
PEAK_S: Final = 120.0
"""A peak is the highest sample of the last one to two of these times."""


@dataclass
class _Counter:
    """The meter of one container while it is measured."""

    at_s: float
    cpu_ns: int
    memory_bytes: int = 0
    memory_byte_s: float = 0.0
    measured_s: float = 0.0
    samples: int = 0
    peaks_since_s: float = 0.0
    peaks: tuple[int, int] = (0, 0)
    peaks_before: tuple[int, int] = (0, 0)
    ended_s: float | None = None

    def meter(self) -> Meter:
        cpu_milli, memory_bytes = map(max, zip(self.peaks, self.peaks_before, strict=True))
        return Meter(
            cpu_ms=self.cpu_ns // 1_000_000,
            memory_byte_s=self.memory_byte_s,
            measured_s=self.measured_s,
            peak_cpu_milli=cpu_milli,
            peak_memory_bytes=memory_bytes,
        )


class ContainerMeters:
    """The meters of one agent, from its start on. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}

    def sample(self, key: str, *, cpu_ns: int, memory_bytes: int, began_s: float, now_s: float) -> None:
        """Add a sample of a container: its CPU time since its creation, and its memory now.

        The memory counts since the last sample, or since ``began_s``, when this agent first had it ready.
        """
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(at_s=began_s, cpu_ns=cpu_ns, peaks_since_s=now_s)
        elif counter.ended_s is not None:
            return  # It was removed while it was measured.
        passed_s = max(0.0, now_s - counter.at_s)
        mean_bytes = (counter.memory_bytes + memory_bytes) / 2 if counter.samples else memory_bytes
        self._advance(counter, cpu_ns, passed_s, mean_bytes, now_s)
        counter.memory_bytes = memory_bytes
        counter.samples += 1
        self._record_peak(counter, (counter.peaks[0], max(counter.peaks[1], memory_bytes)), now_s)

    def end(self, key: str, *, cpu_ns: int, now_s: float) -> None:
        """Close the meter of a container that is about to be removed.

        Its memory is taken to be what it was at the last sample.
        """
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(at_s=now_s, cpu_ns=cpu_ns)
        if counter.ended_s is None:
            passed_s = max(0.0, now_s - counter.at_s)
            self._advance(counter, cpu_ns, passed_s, counter.memory_bytes, now_s)
            counter.ended_s = now_s

    def readings(self, now_s: float) -> dict[str, Meter]:
        """Return all meters by container key, and drop those that have ended long ago."""
        ended = [key for key, counter in self._counters.items() if counter.ended_s is not None]
        late = len(ended) - ENDED_MAX
        for number, key in enumerate(sorted(ended, key=lambda key: self._counters[key].ended_s or 0.0)):
            if number < late or now_s - (self._counters[key].ended_s or 0.0) > ENDED_KEPT_S:
                del self._counters[key]
        return {key: counter.meter() for key, counter in self._counters.items()}

    def keep_only(self, keys: set[str], now_s: float) -> None:
        """Close the meters of containers that are gone without ``end``."""
        for key in self._counters.keys() - keys:
            if self._counters[key].ended_s is None:
                self._counters[key].ended_s = now_s

    def _advance(
        self, counter: _Counter, cpu_ns: int, passed_s: float, mean_bytes: float, now_s: float
    ) -> None:
        used_ns = max(0, cpu_ns - counter.cpu_ns)
        if counter.samples and passed_s > 0:
            cpu_milli = max(counter.peaks[0], round(used_ns / passed_s / 1e6))
            self._record_peak(counter, (cpu_milli, counter.peaks[1]), now_s)
        counter.cpu_ns = max(counter.cpu_ns, cpu_ns)
        counter.memory_byte_s += mean_bytes * passed_s
        counter.measured_s += passed_s
        counter.at_s = max(counter.at_s, now_s)

    def _record_peak(self, counter: _Counter, peaks: tuple[int, int], now_s: float) -> None:
        if now_s - counter.peaks_since_s > PEAK_S:
            counter.peaks_before, counter.peaks, counter.peaks_since_s = peaks, (0, 0), now_s
        else:
            counter.peaks = peaks


class Measured(NamedTuple):
    """What a container used between two readings: CPU milliseconds, memory byte-seconds, seconds measured."""

    cpu_ms: float
    memory_byte_s: float
    measured_s: float


def progress(before: Meter | None, now: Meter, *, same_boot: bool, elapsed_s: float) -> Measured:
    """Return what a container used between two readings of its meter, ``elapsed_s`` apart.

    CPU time is counted by the kernel from the container's creation. Memory is counted by the agent's
    process; after a restart of it (not ``same_boot``) it counts from zero, and for the time between, in
    which nobody measured, the container is taken to have used as much as on average since then.
    """
    if before is None:
        return _limited(now.cpu_ms, now.memory_byte_s, now.measured_s)
    cpu_ms = now.cpu_ms - before.cpu_ms
    if same_boot:
        return _limited(cpu_ms, now.memory_byte_s - before.memory_byte_s, now.measured_s - before.measured_s)
    gap_s = max(0.0, elapsed_s - now.measured_s) if now.measured_s > 0 else 0.0
    mean_bytes = now.memory_byte_s / now.measured_s if now.measured_s > 0 else 0.0
    return _limited(cpu_ms, now.memory_byte_s + mean_bytes * gap_s, now.measured_s + gap_s)


def _limited(cpu_ms: float, memory_byte_s: float, measured_s: float) -> Measured:
    """Return amounts that are neither negative nor impossible, whatever an agent has sent."""
    amounts = (cpu_ms, memory_byte_s, measured_s)
    return Measured(*(min(max(float(amount), 0.0), USED_MAX) for amount in amounts))
