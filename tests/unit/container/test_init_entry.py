"""The launcher loads the functions of AppWorker's module by name."""

from __future__ import annotations

import galaxy.worker_entry.main as app_worker
from galaxy.container.launcher.server import load_entry


def test_appworker_has_every_function_that_the_launcher_looks_for() -> None:
    entry = load_entry("galaxy.worker_entry.main:run")
    assert entry.run is app_worker.run
    assert entry.warm_up is app_worker.warm_up
    assert entry.run_prefork is app_worker.run_prefork


def test_entry_without_a_warm_up_has_none() -> None:
    entry = load_entry("os:abort")
    assert (entry.warm_up, entry.run_prefork) == (None, None)
