"""``galaxy-chaos``: a run keeps every promise, a broken promise is found, and Ctrl-C leaves nothing.

Variables: GALAXY_TEST_CHAOS_S, how many seconds the run lasts (without it, it injects every fault
once, which takes about two minutes); GALAXY_TEST_CHAOS_SEED, the order of the faults;
GALAXY_TEST_CHAOS_ALLOWANCE, the factor by which this machine may exceed the promised times.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from galaxy.testing.chaos.faults import FAULTS
from tests.support.interrupts import accept_interrupts

LASTS_S = float(os.environ.get("GALAXY_TEST_CHAOS_S", "0"))
SEED = os.environ.get("GALAXY_TEST_CHAOS_SEED", "1")
WITHIN_S = 10.0
ROUND_S_MAX = 400.0
"""The longest that injecting every fault once may take."""
EVERY_FAULT_S = 600.0
"""A run this long injects every fault at least once."""
CHAOS = [sys.executable, "-P", "-m", "galaxy.testing.chaos.command"]


def chaos(*arguments: str, timeout_s: float) -> tuple[int, str, dict[str, Any]]:
    """Run ``galaxy-chaos``; return its exit code, its output, and its line of JSON."""
    done = subprocess.run([*CHAOS, *arguments], capture_output=True, text=True, timeout=timeout_s)
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(int(LASTS_S or ROUND_S_MAX) + 200)
def test_cluster_keeps_every_promise_under_every_fault_and_recovers_in_time(
    slower: float,
) -> None:
    within_s = WITHIN_S * slower
    length = ["--for", f"{LASTS_S}s"] if LASTS_S else ["--rounds", "1"]
    arguments = [*length, "--seed", SEED, "--leaders", "2", "--within", f"{within_s}s"]
    status, _, report = chaos(*arguments, timeout_s=(LASTS_S or ROUND_S_MAX) + 150)
    assert status == 0, report["broken"]
    if not LASTS_S or LASTS_S >= EVERY_FAULT_S:
        assert set(report["faults"]) == set(FAULTS), "not every fault was injected"
    assert report["counted"] > report["lasted_s"]


@pytest.mark.timeout(180)
def test_run_with_a_broken_promise_exits_1_and_prints_a_timeline(tmp_path: Path) -> None:
    arguments = ["--for", "5s", "--faults", "kill-launcher", "--within", "0.001s", "--dir", str(tmp_path)]
    status, output, report = chaos(*arguments, timeout_s=150)
    assert status == 1
    assert report["chaos"] == "broken"
    assert "kill-launcher begins" in output
    assert "BROKEN: recovered only" in output
    assert (tmp_path / "c" / "logs" / "agent.log").exists()


@pytest.mark.timeout(180)
def test_interrupted_run_leaves_no_process_and_no_cluster(tmp_path: Path) -> None:
    arguments = ["--for", "100s", "--faults", "kill-launcher,stop-redis", "--dir", str(tmp_path)]
    running = subprocess.Popen(
        [*CHAOS, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=accept_interrupts,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        assert any("recovered after" in line for line in lines), "no fault was injected"
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=90)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    left = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(tmp_path) in str(p.info)]
    assert left == []
    assert not (tmp_path / "c" / "cluster.json").exists()
