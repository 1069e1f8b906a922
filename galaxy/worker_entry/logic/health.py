"""Health of a running program: when to ask, and what the answers add up to.

An unhealthy program is reported, not restarted: health is readiness here. It decides whether
a pod's endpoints are handed out and whether a rollout goes on; what ends a program is its own
exit, its limits, or an order. So a slow dependency cannot make Galaxy kill a whole service.

After a start the questions come quickly (from 20 ms on, each pause twice the last) until the
first good answer or the check's own interval, so that a quick program counts at once. Only
failures at the full interval, and after ``grace``, count towards ``failures``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.model.jobspec.spec import HealthSpec, TaskSpec
from galaxy.worker_entry.logic.records import Health

SETTLE_S: Final = 1.0
"""A program without any check counts as healthy once it has been up this long."""
FIRST_S: Final = {"tcp": 0.02, "http": 0.02, "command": 0.2}
"""First pause by kind of check; a command costs a process, so it is asked less eagerly."""


def check_of(spec: TaskSpec, batch: bool) -> HealthSpec | None:
    """Return the check in force; a service's first service port is asked by tcp if no check is given."""
    if spec.health is not None:
        return spec.health
    if spec.services and not batch:
        return HealthSpec(type="tcp", port=spec.services[0].port)
    return None


def begin(check: HealthSpec | None, now_s: float) -> Health:
    """Return the health of a program that starts now."""
    gap_s = SETTLE_S if check is None else min(FIRST_S[check.type], check.interval)
    return Health(due_s=now_s + gap_s, gap_s=gap_s)


def changed(health: Health, check: HealthSpec | None, now_s: float) -> Health:
    """Return the health of a running program whose check is another one from now on."""
    return msgspec.structs.replace(begin(check, now_s), probe=health.probe, verdict=health.verdict)


def answered(health: Health, check: HealthSpec, ok: bool, uptime_s: float, now_s: float) -> Health:
    """Return the health after an answer to question ``health.probe``."""
    if ok:
        return msgspec.structs.replace(
            health, verdict=True, failures=0, gap_s=check.interval, due_s=now_s + check.interval
        )
    counts = health.gap_s >= check.interval and uptime_s >= check.grace
    failures = health.failures + counts
    gap_s = min(health.gap_s * 2, check.interval)
    return msgspec.structs.replace(
        health,
        verdict=False if failures >= check.failures else health.verdict,
        failures=failures,
        gap_s=gap_s,
        due_s=now_s + gap_s,
    )
