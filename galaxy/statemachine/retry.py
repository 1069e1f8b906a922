"""When to try again what has failed: after waits that double, and in the end not without a new reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Retry:
    """The failures in a row of one undertaking; ``now`` is the monotonic clock's, in seconds.

    The wait after the first failure is ``first_s``, and doubles up to ``longest_s``; after
    ``tries_max`` failures there is no further try until somebody asks for one.
    """

    first_s: float
    longest_s: float
    tries_max: int
    failures: int = 0
    _at_s: float = 0.0

    @property
    def given_up(self) -> bool:
        return self.failures >= self.tries_max

    def wait_s(self, now: float) -> float | None:
        """Return in how many seconds the next try is due, 0.0 for at once, None for not by itself."""
        return None if self.given_up else max(0.0, self._at_s - now)

    def failed(self, now: float) -> None:
        """Take in a try that failed."""
        self._at_s = now + min(self.first_s * 2**self.failures, self.longest_s)
        self.failures = min(self.failures + 1, self.tries_max)

    def succeeded(self) -> None:
        """Take in a try that did not: what fails after it fails for the first time."""
        self.failures, self._at_s = 0, 0.0

    def ask(self) -> None:
        """Allow one try more of what was given up; not before the last wait is over."""
        self.failures = min(self.failures, self.tries_max - 1)

    def hurry(self) -> None:
        """Have one try more made at once."""
        self.ask()
        self._at_s = 0.0
