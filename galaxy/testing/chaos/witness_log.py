"""What the witnesses said, and what of it must never be. Pure: the clock arrives with each message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KINDS: Final = ("count", "began", "done", "copy")


@dataclass(frozen=True)
class WitnessMessage:
    """One message of a witness; ``pid`` is the kernel's word, ``started`` tells lives of a pid apart."""

    kind: str
    job: str
    pod: str
    index: int
    started: int
    count: int
    pid: int


def parse(data: bytes, pid: int) -> WitnessMessage | None:
    """Return the message, or None for what no witness says."""
    words = data.decode(errors="replace").split()
    if len(words) != 6 or words[0] not in KINDS or not all(word.isdecimal() for word in words[3:]):
        return None
    kind, job, pod, index, started, count = words
    return WitnessMessage(kind, job, pod, int(index), int(started), int(count), pid)


@dataclass
class ProgramRun:
    """One process of a replica, and how far it has counted; ``heard_s`` is the monotonic clock."""

    pid: int
    started: int
    count: int
    heard_s: float


@dataclass
class WitnessLog:
    """All lives of all replicas. ``wrong`` says in words what must never have happened.

    A job's programs may begin anew once for each ``allow``: an update, a start, a killed PID 1.
    """

    wrong: list[str] = field(default_factory=list)
    lives: dict[str, list[ProgramRun]] = field(default_factory=dict)
    """By pod, in the order in which they began."""
    pods: dict[str, dict[int, str]] = field(default_factory=dict)
    """By job and index."""
    allowed: dict[str, int] = field(default_factory=dict)
    batches: dict[str, list[str]] = field(default_factory=dict)
    """By job, what its pod said: ``began`` and ``done``."""
    begun_s: dict[str, float] = field(default_factory=dict)
    """By job, when its batch began (monotonic clock)."""

    def allow(self, job: str) -> None:
        """Expect that programs of ``job`` begin anew once more; say so before asking for it."""
        self.allowed[job] = self.allowed.get(job, 0) + 1

    def hear(self, said: WitnessMessage, now_s: float) -> None:
        """Take in one message."""
        if said.kind == "copy":
            self.wrong.append(f"a second copy of {said.job}.{said.index} ran, as process {said.pid}")
        elif said.kind == "count":
            self._count(said, now_s)
        else:
            self._batch(said, now_s)

    def silent(self, job: str, replica: int, now_s: float, within_s: float) -> list[int]:
        """Return which of the first ``replica`` indexes of ``job`` have not counted ``within_s``."""
        pods = self.pods.get(job, {})
        late = now_s - within_s
        return [i for i in range(replica) if i not in pods or self.lives[pods[i]][-1].heard_s < late]

    def loud(self, job: str, replica: int, now_s: float, within_s: float) -> list[int]:
        """Return which indexes of ``job``, from ``replica`` on, have counted ``within_s``."""
        pods = self.pods.get(job, {})
        since = now_s - within_s
        return [i for i, pod in sorted(pods.items()) if i >= replica and self.lives[pod][-1].heard_s > since]

    def counted(self, job: str) -> int:
        """Return how often the programs of ``job`` have counted, all lives together."""
        return sum(life.count for pod in self.pods.get(job, {}).values() for life in self.lives[pod])

    def _count(self, said: WitnessMessage, now_s: float) -> None:
        self.pods.setdefault(said.job, {})[said.index] = said.pod
        lives = self.lives.setdefault(said.pod, [])
        replica = f"{said.job}.{said.index}"
        known = [life for life in lives if (life.pid, life.started) == (said.pid, said.started)]
        if not known:
            self._begin(said, lives, replica, now_s)
            return
        life = known[0]
        if life is not lives[-1]:
            self.wrong.append(
                f"process {said.pid} of {replica} counts on beside its successor {lives[-1].pid}"
            )
        if said.count != life.count + 1:
            self.wrong.append(f"{replica} went from {life.count} to {said.count}")
        life.count, life.heard_s = said.count, now_s

    def _begin(self, said: WitnessMessage, lives: list[ProgramRun], replica: str, now_s: float) -> None:
        if said.count != 1:
            self.wrong.append(f"{replica} was first heard at {said.count}")
        if len(lives) > self.allowed.get(said.job, 0):
            self.wrong.append(
                f"{replica} began again as process {said.pid}, and had counted to {lives[-1].count}"
            )
        lives.append(ProgramRun(said.pid, said.started, said.count, now_s))

    def _batch(self, said: WitnessMessage, now_s: float) -> None:
        told = self.batches.setdefault(said.job, [])
        told.append(said.kind)
        self.begun_s.setdefault(said.job, now_s)
        if told != ["began", "done"][: len(told)]:
            self.wrong.append(f"the batch {said.job} ran more than once: {' '.join(told)}")
