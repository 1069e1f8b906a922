"""The report of a run: a table with one line per fault, and one line of JSON."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ChaosReport:
    """Recovery times in seconds by fault, the changes acknowledged meanwhile, and broken promises."""

    seed: int
    agents: int
    leaders: int
    within_s: float
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    changes: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    lasted_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How many faults the cluster recovered from."""
        return sum(map(len, self.recoveries.values()))

    def lines(self) -> list[str]:
        """Return the table and the counts below it."""
        rows = [f"{'fault':<16}{'count':>7}{'median':>9}{'worst':>9}   s until recovered"]
        for name, times in sorted(self.recoveries.items()):
            rows.append(f"{name:<16}{len(times):>7}{statistics.median(times):>9.2f}{max(times):>9.2f}")
        acknowledged = ", ".join(f"{count} {kind}" for kind, count in sorted(self.changes.items()))
        rows.append(f"changes acknowledged and verified: {acknowledged or 'none'}")
        rows.append(f"the unchanged witnesses counted {self.counted} times")
        return rows

    def json(self) -> str:
        """Return one line of JSON."""
        faults: dict[str, Any] = {
            name: {
                "count": len(times),
                "median_s": round(statistics.median(times), 2),
                "worst_s": round(max(times), 2),
            }
            for name, times in sorted(self.recoveries.items())
        }
        return json.dumps(
            {
                "chaos": "broken" if self.violations else "held",
                "seed": self.seed,
                "agents": self.agents,
                "leaders": self.leaders,
                "lasted_s": round(self.lasted_s),
                "within_s": self.within_s,
                "faults": faults,
                "changes": dict(sorted(self.changes.items())),
                "counted": self.counted,
                "broken": self.violations,
            }
        )
