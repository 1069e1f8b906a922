"""What the witness programs reported, and which reports break a promise.

Pure: the time of each message is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KINDS: Final = ("count", "started", "finished", "duplicate")


@dataclass(frozen=True)
class WitnessMessage:
    """One message of a witness program.

    ``pid`` comes from the kernel (SCM_CREDENTIALS). ``started`` is the program's start time
    (monotonic nanoseconds), which distinguishes two processes that had the same pid one after the other.
    """

    kind: str
    job: str
    pod: str
    index: int
    started: int
    count: int
    pid: int


def parse(data: bytes, pid: int) -> WitnessMessage | None:
    """Return the message in ``data``, or None if it is malformed."""
    words = data.decode(errors="replace").split()
    if len(words) != 6 or words[0] not in KINDS or not all(word.isdecimal() for word in words[3:]):
        return None
    kind, job, pod, index, started, count = words
    return WitnessMessage(kind, job, pod, int(index), int(started), int(count), pid)


@dataclass
class ProgramRun:
    """One process of a replica and the last number it reported, at ``seen_s`` (monotonic clock)."""

    pid: int
    started: int
    count: int
    seen_s: float


@dataclass
class WitnessLog:
    """Every process of every replica. ``violations`` describes each report that breaks a promise.

    The programs of a job may restart once for each ``allow_restart``: for an update, a start, a
    killed PID 1. Any other restart is a violation.
    """

    violations: list[str] = field(default_factory=list)
    runs: dict[str, list[ProgramRun]] = field(default_factory=dict)
    """By pod, oldest first."""
    pods: dict[str, dict[int, str]] = field(default_factory=dict)
    """By job and index."""
    restarts_allowed: dict[str, int] = field(default_factory=dict)
    batches: dict[str, list[str]] = field(default_factory=dict)
    """By job, the kinds of message that its pod sent: ``started``, then ``finished``."""
    batch_started_s: dict[str, float] = field(default_factory=dict)
    """By job, when its batch program started (monotonic clock)."""

    def allow_restart(self, job: str) -> None:
        """Expect one more restart of the programs of ``job``. Call it before asking for the restart."""
        self.restarts_allowed[job] = self.restarts_allowed.get(job, 0) + 1

    def record(self, message: WitnessMessage, now_s: float) -> None:
        """Apply one message and record what it violates."""
        if message.kind == "duplicate":
            self.violations.append(
                f"a second copy of {message.job}.{message.index} ran, as process {message.pid}"
            )
        elif message.kind == "count":
            self._record_count(message, now_s)
        else:
            self._record_batch(message, now_s)

    def not_counting(self, job: str, replica: int, now_s: float, within_s: float) -> list[int]:
        """Return the indexes below ``replica`` of ``job`` that have not counted for ``within_s``."""
        pods = self.pods.get(job, {})
        oldest_s = now_s - within_s
        return [i for i in range(replica) if i not in pods or self.runs[pods[i]][-1].seen_s < oldest_s]

    def still_counting(self, job: str, replica: int, now_s: float, within_s: float) -> list[int]:
        """Return the indexes of ``job`` from ``replica`` on that have counted within ``within_s``."""
        pods = self.pods.get(job, {})
        oldest_s = now_s - within_s
        return [i for i, pod in sorted(pods.items()) if i >= replica and self.runs[pod][-1].seen_s > oldest_s]

    def counted(self, job: str) -> int:
        """Return how often the programs of ``job`` have counted, over all their processes."""
        return sum(run.count for pod in self.pods.get(job, {}).values() for run in self.runs[pod])

    def _record_count(self, message: WitnessMessage, now_s: float) -> None:
        self.pods.setdefault(message.job, {})[message.index] = message.pod
        runs = self.runs.setdefault(message.pod, [])
        replica = f"{message.job}.{message.index}"
        known = [run for run in runs if (run.pid, run.started) == (message.pid, message.started)]
        if not known:
            self._record_new_process(message, runs, replica, now_s)
            return
        run = known[0]
        if run is not runs[-1]:
            self.violations.append(
                f"process {message.pid} of {replica} still counts although {runs[-1].pid} has replaced it"
            )
        if message.count != run.count + 1:
            self.violations.append(f"{replica} went from {run.count} to {message.count}")
        run.count, run.seen_s = message.count, now_s

    def _record_new_process(
        self, message: WitnessMessage, runs: list[ProgramRun], replica: str, now_s: float
    ) -> None:
        if message.count != 1:
            self.violations.append(f"the first message of {replica} had count {message.count}")
        if len(runs) > self.restarts_allowed.get(message.job, 0):
            self.violations.append(
                f"{replica} restarted as process {message.pid}; it had counted to {runs[-1].count}"
            )
        runs.append(ProgramRun(message.pid, message.started, message.count, now_s))

    def _record_batch(self, message: WitnessMessage, now_s: float) -> None:
        kinds = self.batches.setdefault(message.job, [])
        kinds.append(message.kind)
        self.batch_started_s.setdefault(message.job, now_s)
        if kinds != ["started", "finished"][: len(kinds)]:
            self.violations.append(f"batch job {message.job} ran more than once: {' '.join(kinds)}")
