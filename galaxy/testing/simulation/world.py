"""Virtual time, chance from one seed, and the story of what happened."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from galaxy.testing.simulation.faults import CALM, Faults

START_S: Final = 1_800_000_000.0
"""Unix seconds at which every simulated world begins."""
STORY_MAX: Final = 20_000


class World:
    """One thread of virtual time. ``calm_s`` is when faults stop, seconds after the start."""

    def __init__(self, seed: int, faults: Faults, calm_s: float) -> None:
        self.random = random.Random(seed)  # noqa: S311 - chance that can be replayed is the point
        self.now_s = START_S
        self.steps = 0
        self.struck: Counter[str] = Counter()
        """How often each fault came to be, by its name in ``Faults``."""
        self.story: deque[str] = deque(maxlen=STORY_MAX)
        self._faults = faults
        self._calm_s = START_S + calm_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._fingerprint = hashlib.blake2b(digest_size=8)

    @property
    def faults(self) -> Faults:
        return self._faults if self.now_s < self._calm_s else CALM

    @property
    def elapsed_s(self) -> float:
        return self.now_s - START_S

    @property
    def fingerprint(self) -> str:
        """Eight bytes that stand for the whole story so far."""
        return self._fingerprint.hexdigest()

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Have ``act`` called in ``delay_s``; acts of one instant in the order of asking."""
        self._count += 1
        heapq.heappush(self._due, (self.now_s + delay_s, self._count, act))

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``; draws nothing when that is zero."""
        return probability > 0 and self.random.random() < probability

    def strikes(self, fault: str, *, able: bool = True) -> bool:
        """Return True with the probability that ``Faults`` gives a fault, and count it.

        ``able`` is whether it can happen at all just now; what is drawn is the same either way.
        """
        if not self.chance(getattr(self.faults, fault)) or not able:
            return False
        self.struck[fault] += 1
        return True

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def tell(self, line: str) -> None:
        """Add to the story."""
        text = f"{self.elapsed_s:9.3f}  {line}"
        self.story.append(text)
        self._fingerprint.update(text.encode())

    def run(self, until_s: float, each: Callable[[], None]) -> None:
        """Let time pass until ``until_s`` seconds after the start; ``each`` is called at every step."""
        while self._due and self._due[0][0] <= START_S + until_s:
            self.now_s, _, act = heapq.heappop(self._due)
            self.steps += 1
            act()
            each()
        self.now_s = max(self.now_s, START_S + until_s)
