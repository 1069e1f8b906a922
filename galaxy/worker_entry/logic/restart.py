"""Restart policy: whether an ended program or a failed deployment is tried again, and when."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import RestartSpec, TaskSpec
from galaxy.model.messages.pod import Exit
from galaxy.statemachine.backoff import delay_after

SERVICE: Final = RestartSpec(policy="always", attempts=-1)
BATCH: Final = RestartSpec(policy="on-failure", attempts=3)
DEPLOY_RETRIES: Final = 3
"""Retries of a deployment under policy ``never``, which applies to programs only."""


class RetryAfter(Struct, frozen=True, kw_only=True):
    """Try again in ``delay_s`` seconds; ``failures`` counts this failure too."""

    delay_s: float
    failures: int


class Complete(Struct, frozen=True, kw_only=True):
    """The program succeeded and is not started again."""


class GiveUp(Struct, frozen=True, kw_only=True):
    """No retry is left after ``retries`` of them (0: none was allowed)."""

    retries: int


Decision = RetryAfter | Complete | GiveUp


def policy_of(spec: TaskSpec, *, batch: bool) -> RestartSpec:
    """Return the restart policy in force: the spec's, else the default of the job's kind."""
    return spec.restart or (BATCH if batch else SERVICE)


def decide_after_exit(
    restart: RestartSpec, exit_: Exit, *, batch: bool, failures: int, uptime_s: float
) -> Decision:
    """Decide what follows when a program ended by itself after ``uptime_s`` seconds.

    Exit code 0 completes a batch program under every policy, and any program whose policy is
    not ``always``. A program that stayed up for ``reset`` seconds has all its retries again.
    """
    succeeded = exit_.code == 0
    if succeeded and (batch or restart.policy != "always"):
        return Complete()
    if restart.policy == "never":
        return GiveUp(retries=0)
    return _retry(restart, restart.attempts, 0 if uptime_s >= restart.reset else failures)


def decide_after_failed_deploy(restart: RestartSpec, failures: int) -> RetryAfter | GiveUp:
    """Decide what follows when a deployment failed for a temporary cause."""
    return _retry(restart, DEPLOY_RETRIES if restart.policy == "never" else restart.attempts, failures)


def _retry(restart: RestartSpec, attempts: int, failures: int) -> RetryAfter | GiveUp:
    if 0 <= attempts <= failures:
        return GiveUp(retries=failures)
    delay_s = delay_after(failures + 1, first_s=restart.delay, max_s=max(restart.delay, restart.delay_max))
    return RetryAfter(delay_s=delay_s, failures=failures + 1)
