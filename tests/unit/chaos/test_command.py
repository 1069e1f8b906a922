"""Selection of faults by name, and the report of a run."""

from __future__ import annotations

import json

import pytest

from galaxy.errors import USAGE, UsageError
from galaxy.testing.chaos.command import run
from galaxy.testing.chaos.faults import FAULTS, select_faults
from galaxy.testing.chaos.report import ChaosReport


def names(*selectors: str, leaders: int = 2) -> set[str]:
    return {fault.name for fault in select_faults(selectors, leaders=leaders)}


def test_faults_are_selected_by_name_verb_or_part() -> None:
    assert names() == set(FAULTS)
    assert names("kill-redis") == {"kill-redis"}
    assert names("cut") == {"cut-resman", "cut-appmaster"}
    assert names("redis") == {"kill-redis", "stop-redis"}
    assert {"kill-agent", "stop-agent"} <= names("agent", "kill")


def test_leader_without_a_standby_is_never_cut_off() -> None:
    assert not any(name.startswith("cut") for name in names(leaders=1))
    with pytest.raises(UsageError, match="needs a standby"):
        names("cut", leaders=1)


def test_unknown_fault_is_wrong_usage_and_the_known_ones_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--faults", "burn"]) == USAGE
    assert "kill-agent" in capsys.readouterr().err


def test_report_has_one_row_per_fault_and_a_line_of_json() -> None:
    report = ChaosReport(seed=3, agents=1, leaders=2, within_s=10.0)
    report.recoveries["kill-agent"] += [1.0, 2.0, 6.0]
    assert "kill-agent            3     2.00     6.00" in "\n".join(report.lines())
    decoded = json.loads(report.json())
    assert decoded["faults"] == {"kill-agent": {"count": 3, "median_s": 2.0, "worst_s": 6.0}}
    assert decoded["chaos"] == "held"
