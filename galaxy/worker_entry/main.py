"""AppWorker's entry point: the first process of a container.

The launcher imports this module before it forks, so that all containers share its memory. Nothing
is imported afterwards, because inside a container there may be nothing to import from. When
AppWorker ends, the container ends.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import NoReturn

from galaxy.container.kernel import prctl
from galaxy.model.messages.worker import WorkerConfig
from galaxy.worker_entry.app_worker import FAULT_PAUSE_S, AppWorker
from galaxy.worker_entry.prefork import run_prefork
from galaxy.worker_entry.processes import kill_descendants
from galaxy.worker_entry.spawn import IGNORED
from galaxy.worker_entry.warmup import warm_up

__all__ = ["run", "run_prefork", "warm_up"]


def run(config: WorkerConfig) -> NoReturn:
    """Run the AppWorker of ``config``'s container until it is asked to quit, then exit with 0."""
    # The collector would write to every page shared since the fork, and so copy it.
    gc.freeze()
    prctl.set_process_name("galaxy-appworker")
    os.chdir("/")
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if not config.isolated:
        prctl.become_subreaper()
    worker = AppWorker(config)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while not worker.done:
        try:
            worker.loop.run_once()
        except Exception as error:  # noqa: BLE001  (a defect of ours must not end the user's programs)
            worker.on_fault(error)
            time.sleep(FAULT_PAUSE_S)
    if not config.isolated:
        kill_descendants()  # Otherwise the end of the PID namespace kills them.
    os._exit(0)
