"""``galaxy-chaos`` for ten minutes, and that it can fail, and that Ctrl-C leaves nothing.

GALAXY_TEST_CHAOS_S says for how long (default 600 s), GALAXY_TEST_CHAOS_SEED in which order,
GALAXY_TEST_CHAOS_ALLOWANCE by how much this machine may be slower than what is promised.
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
from tests.support.interrupts import hear_interrupts

LASTS_S = float(os.environ.get("GALAXY_TEST_CHAOS_S", "600"))
SEED = os.environ.get("GALAXY_TEST_CHAOS_SEED", "1")
WITHIN_S = 10.0
CHAOS = [sys.executable, "-P", "-m", "galaxy.testing.chaos.command"]


def chaos(*words: str, timeout_s: float) -> tuple[int, str, dict[str, Any]]:
    """Run ``galaxy-chaos WORDS``; return its exit code, what it wrote, and its line of JSON."""
    done = subprocess.run([*CHAOS, *words], capture_output=True, text=True, timeout=timeout_s)
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(int(LASTS_S) + 400)
def test_whatever_dies_no_count_resets_no_copy_runs_nothing_accepted_is_lost_and_it_is_soon_whole(
    allowance: float,
) -> None:
    within_s = WITHIN_S * allowance
    words = ["--for", f"{LASTS_S}s", "--seed", SEED, "--leaders", "2", "--within", f"{within_s}s"]
    status, _, told = chaos(*words, timeout_s=LASTS_S + 300)
    assert status == 0, told["broken"]
    if LASTS_S >= 600:
        assert set(told["faults"]) == set(FAULTS), "not every fault had its turn"
    assert told["counted"] > LASTS_S


@pytest.mark.timeout(180)
def test_broken_promise_is_exit_code_1_with_the_story(tmp_path: Path) -> None:
    words = ["--for", "5s", "--faults", "kill-launcher", "--within", "0.001s", "--dir", str(tmp_path)]
    status, written, told = chaos(*words, timeout_s=150)
    assert status == 1
    assert told["chaos"] == "broken"
    assert "kill-launcher begins" in written
    assert "BROKEN: whole again only" in written
    assert (tmp_path / "c" / "logs" / "agent.log").exists()


@pytest.mark.timeout(180)
def test_interrupted_run_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    words = ["--for", "100s", "--faults", "kill-launcher,stop-redis", "--dir", str(tmp_path)]
    running = subprocess.Popen(
        [*CHAOS, *words], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        assert any("whole again after" in line for line in lines), "no fault was done"
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=90)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    found = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(tmp_path) in str(p.info)]
    assert found == []
    assert not (tmp_path / "c" / "cluster.json").exists()
