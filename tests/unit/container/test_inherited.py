"""What a process inherits from its starter is set to documented values."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from galaxy.container.kernel import inherited
from galaxy.container.kernel.environment import clean

IN_CHILD = """
import json, os, resource, signal, sys
from galaxy.container.kernel import inherited
{before}
inherited.reset()
{after}
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({{
    "umask": status["Umask"].strip(), "blocked": int(status["SigBlk"], 16),
    "ignored": int(status["SigIgn"], 16), "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "policy": os.sched_getscheduler(0), "oom": open("/proc/self/oom_score_adj").read().strip(),
    "slack": open("/proc/self/timerslack_ns").read().strip(),
    "filter": open("/proc/self/coredump_filter").read().strip(),
    "personality": open("/proc/self/personality").read().strip(),
    "limits": {{name: resource.getrlimit(number) for name, number in inherited.NUMBERS.items()}},
}}))
"""

HOSTILE = """
os.umask(0o077)
for name, soft in (("nofile", 64), ("stack", 1 << 20), ("fsize", 1 << 20), ("core", 1), ("data", 1 << 30)):
    hard = resource.getrlimit(inherited.NUMBERS[name])[1]
    resource.setrlimit(inherited.NUMBERS[name], (soft, hard))
for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTSTP, signal.SIGRTMIN):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
os.nice(10)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
for path, value in (("oom_score_adj", "500"), ("coredump_filter", "0"), ("timerslack_ns", "1000000")):
    open(f"/proc/self/{path}", "w").write(value)
"""

ROOT = os.geteuid() == 0


def state(before: str = "", after: str = "", executable: tuple[str, ...] = ()) -> dict[str, object]:
    code = IN_CHILD.format(before=before, after=after)
    done = subprocess.run(
        [*executable, sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return dict(json.loads(done.stdout))


def test_hostile_state_is_reset() -> None:
    found = state(HOSTILE)
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert (found["umask"], found["blocked"], found["ignored"]) == ("0022", 0, python_ignores)
    assert (found["policy"], found["slack"], found["filter"]) == (os.SCHED_OTHER, "50000", "00000033")
    if ROOT:
        assert found["nice"] == 0
    limits = found["limits"]
    assert isinstance(limits, dict)
    for name in ("fsize", "data", "nofile"):
        assert limits[name][0] == limits[name][1]
    assert limits["stack"][0] == inherited.at_most(8 << 20, limits["stack"][1])
    assert limits["core"][0] == 0


def test_interrupt_that_was_ignored_raises_again() -> None:
    after = "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, file=sys.stderr)"
    code = IN_CHILD.format(before="signal.signal(signal.SIGINT, signal.SIG_IGN)", after=after)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "True\n"


def test_program_gets_the_documented_limits_and_no_more_than_its_parent_has() -> None:
    limits = state(HOSTILE, "inherited.limit_program({})")["limits"]
    most = state()["limits"]
    assert isinstance(limits, dict) and isinstance(most, dict)
    for name, (soft, hard) in inherited.PROGRAM_LIMITS.items():
        ceiling = most[name][1]
        assert tuple(limits[name]) == (
            inherited.at_most(soft, inherited.at_most(hard, ceiling)),
            inherited.at_most(hard, ceiling),
        ), name


def test_program_gets_its_own_limits() -> None:
    limits = state(after="inherited.limit_program({'nofile': (100, 200), 'core': (0, 0)})")["limits"]
    assert isinstance(limits, dict)
    assert (limits["nofile"], limits["core"]) == ([100, 200], [0, 0])


def test_own_limit_above_the_ceiling_is_an_error() -> None:
    after = """
resource.setrlimit(inherited.NUMBERS["nproc"], (5, 5)) if os.geteuid() else None
try:
    inherited.limit_program({"nofile": (1 << 40, 1 << 40)})
except OSError as error:
    print("refused", file=sys.stderr)
"""
    code = IN_CHILD.format(before="", after=after)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "refused\n"


@pytest.mark.parametrize(
    ("value", "ceiling", "lower"), [(5, 7, 5), (7, 5, 5), (-1, 5, 5), (5, -1, 5), (-1, -1, -1), (0, -1, 0)]
)
def test_unlimited_is_above_every_limit(value: int, ceiling: int, lower: int) -> None:
    assert inherited.at_most(value, ceiling) == lower


def test_ceilings_are_the_hard_limits_of_this_process() -> None:
    assert inherited.ceilings()["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_variables_that_change_python_or_libc_are_dropped() -> None:
    hostile = {
        "PYTHONHOME": "/nowhere",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "ascii",
        "LD_PRELOAD": "x.so",
        "MALLOC_PERTURB_": "1",
        "GLIBC_TUNABLES": "x",
    }
    kept = {"PATH": "/bin", "GALAXY_REDIS": "r", "PYTHONPATH": "/src", "https_proxy": "p"}
    assert clean({**hostile, **kept}) == kept | {"PYTHONUTF8": "1"}


def test_limits_that_programs_cannot_have_are_named() -> None:
    assert all(most != -1 and (hard == -1 or most < hard) for hard, most in inherited.shortfalls().values())
    after = "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))\n"
    after += "print(inherited.shortfalls()['nofile'], file=sys.stderr)"
    argv = [sys.executable, "-c", IN_CHILD.format(before="", after=after)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "(524288, 50)\n"
