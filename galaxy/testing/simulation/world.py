"""Virtual time, random choices from one seed, and a log of what happened."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from galaxy.testing.simulation.faults import NO_FAULTS, Faults

START_S: Final = 1_800_057_540.0
"""Unix seconds at which every simulation starts: a minute before midnight UTC, which it passes."""
LOG_MAX: Final = 20_000


class World:
    """One thread of virtual time. Faults stop ``calm_s`` seconds after the start."""

    def __init__(self, seed: int, faults: Faults, calm_s: float) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - choices must be reproducible
        self.now_s = START_S
        self.steps = 0
        self.fault_counts: Counter[str] = Counter()
        """How often each fault occurred, by its name in ``Faults``."""
        self.log: deque[str] = deque(maxlen=LOG_MAX)
        self._faults = faults
        self._calm_s = START_S + calm_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._fingerprint = hashlib.blake2b(digest_size=8)

    @property
    def faults(self) -> Faults:
        return self._faults if self.now_s < self._calm_s else NO_FAULTS

    @property
    def elapsed_s(self) -> float:
        return self.now_s - START_S

    @property
    def fingerprint(self) -> str:
        """Digest of the log so far, hexadecimal: equal runs have equal fingerprints."""
        return self._fingerprint.hexdigest()

    def end_faults(self) -> None:
        """Let no fault occur from now on."""
        self._calm_s = self.now_s

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call ``act`` in ``delay_s`` seconds; calls due at one instant run in the order of scheduling."""
        self._count += 1
        heapq.heappush(self._due, (self.now_s + delay_s, self._count, act))

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``. Zero draws no random number."""
        return probability > 0 and self.random.random() < probability

    def strikes(self, fault: str, *, able: bool = True) -> bool:
        """Return True with the probability that ``Faults`` gives ``fault``, and count it.

        ``able``: whether the fault can occur now. The same random number is drawn either way.
        """
        if not self.chance(getattr(self.faults, fault)) or not able:
            return False
        self.fault_counts[fault] += 1
        return True

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def record(self, line: str) -> None:
        """Append ``line`` to the log."""
        text = f"{self.elapsed_s:9.3f}  {line}"
        self.log.append(text)
        self._fingerprint.update(text.encode())

    def run(self, until_s: float, each: Callable[[], None]) -> None:
        """Advance to ``until_s`` seconds after the start, calling ``each`` after every step."""
        while self._due and self._due[0][0] <= START_S + until_s:
            self.now_s, _, act = heapq.heappop(self._due)
            self.steps += 1
            act()
            each()
        self.now_s = max(self.now_s, START_S + until_s)
