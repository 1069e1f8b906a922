"""When an ended program, or a failed deployment, gets another try, and after how long."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import RestartSpec, TaskSpec
from galaxy.model.messages.pod import Exit

SERVICE: Final = RestartSpec(policy="always", attempts=-1)
BATCH: Final = RestartSpec(policy="on-failure", attempts=3)
DEPLOY_ATTEMPTS: Final = 3
"""Further tries to deploy a task whose policy is ``never``: its program has not run yet."""


class Again(Struct, frozen=True, kw_only=True):
    """Try again ``delay_s`` from now; ``failures`` have been used then."""

    delay_s: float
    failures: int


class Finish(Struct, frozen=True, kw_only=True):
    """It ended well; that was it."""


class GiveUp(Struct, frozen=True, kw_only=True):
    """It failed, and no try is left: ``tries`` were had beside the first."""

    tries: int


Verdict = Again | Finish | GiveUp


def rule(spec: TaskSpec, batch: bool) -> RestartSpec:
    """Return the restart rule in force: the spec's, else the one of the job's kind."""
    return spec.restart or (BATCH if batch else SERVICE)


def after_exit(restart: RestartSpec, batch: bool, exit_: Exit, failures: int, uptime_s: float) -> Verdict:
    """Judge a program that ended by itself after ``uptime_s`` seconds.

    Exit code 0 finishes a batch program whatever its policy, and any program whose policy is
    not ``always``. One that stayed up for ``reset`` seconds has all its tries back.
    """
    well = exit_.code == 0
    if well and (batch or restart.policy != "always"):
        return Finish()
    if restart.policy == "never":
        return GiveUp(tries=0)
    return _again(restart, restart.attempts, 0 if uptime_s >= restart.reset else failures)


def after_failed_deploy(restart: RestartSpec, failures: int) -> Verdict:
    """Judge a deployment that failed for a cause that may pass."""
    return _again(restart, DEPLOY_ATTEMPTS if restart.policy == "never" else restart.attempts, failures)


def _again(restart: RestartSpec, attempts: int, failures: int) -> Verdict:
    if 0 <= attempts <= failures:
        return GiveUp(tries=failures)
    # 2**32 seconds outlast every delay_max; beyond it the power itself would grow without end.
    delay_s = min(restart.delay * 2 ** min(failures, 32), max(restart.delay, restart.delay_max))
    return Again(delay_s=delay_s, failures=failures + 1)
