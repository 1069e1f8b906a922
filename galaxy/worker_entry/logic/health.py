"""Health of a running program: when to probe it, and how the answers decide.

Health is readiness. An unhealthy program is reported, not restarted: health decides whether a
pod's endpoints are published and whether a rollout goes on. A program ends only by its own
exit, by its limits, or by an order, so a slow dependency cannot make Galaxy kill a service.

After a start the probes come quickly (first after 20 ms, each pause twice the last) until the
first success or until the pause reaches the check's interval, so that a program that starts
fast counts as healthy fast. Only failures at the full interval and after ``grace`` count
towards ``failures``.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.model.jobspec.spec import HealthSpec, TaskSpec
from galaxy.worker_entry.logic.records import Health

SETTLE_S: Final = 1.0
"""A program without a check counts as healthy once it has been up this long."""
FIRST_GAP_S: Final = {"tcp": 0.02, "http": 0.02, "command": 0.2}
"""First pause by type of check; longer for a command, because each probe costs a process."""


def check_of(spec: TaskSpec, *, batch: bool) -> HealthSpec | None:
    """Return the check in force; a service without one is probed by tcp on its first service port."""
    if spec.health is not None:
        return spec.health
    if spec.services and not batch:
        return HealthSpec(type="tcp", port=spec.services[0].port)
    return None


def begin(check: HealthSpec | None, now_s: float) -> Health:
    """Return the health of a program that starts now."""
    gap_s = SETTLE_S if check is None else min(FIRST_GAP_S[check.type], check.interval)
    return Health(due_s=now_s + gap_s, gap_s=gap_s)


def with_new_check(health: Health, check: HealthSpec | None, now_s: float) -> Health:
    """Return the health of a running program whose check changes now; its verdict stays."""
    return replace(begin(check, now_s), probe=health.probe, verdict=health.verdict)


def after_answer(health: Health, check: HealthSpec, *, ok: bool, uptime_s: float, now_s: float) -> Health:
    """Return the health after the answer to probe ``health.probe``."""
    if ok:
        return replace(health, verdict=True, failures=0, gap_s=check.interval, due_s=now_s + check.interval)
    counts = health.gap_s >= check.interval and uptime_s >= check.grace
    failures = health.failures + counts
    gap_s = min(health.gap_s * 2, check.interval)
    return replace(
        health,
        verdict=False if failures >= check.failures else health.verdict,
        failures=failures,
        gap_s=gap_s,
        due_s=now_s + gap_s,
    )
