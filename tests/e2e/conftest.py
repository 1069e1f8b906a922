"""What all end-to-end tests share: a failure shows the logs of the clusters that the test used."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Append the log tails of every fixture that has some to the report of a failed test."""
    report = yield
    if report.failed:
        for name, value in sorted(getattr(item, "funcargs", {}).items()):
            if callable(log_tails := getattr(value, "log_tails", None)):
                report.sections.append((f"logs of {name}", log_tails()))
    return report
