"""AppWorker, the first process of a container: deploys, starts, watches and stops its programs.

The launcher imports this module before it forks, so that every container shares it, and
nothing is imported afterwards: inside there may be nothing to import from. When AppWorker
ends, the container ends.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import Final, NoReturn

from galaxy.container.kernel import prctl
from galaxy.model.messages.worker import WorkerConfig
from galaxy.worker_entry.app_worker import AppWorker
from galaxy.worker_entry.prefork import run_prefork
from galaxy.worker_entry.spawn import IGNORED
from galaxy.worker_entry.warmup import warm_up

__all__ = ["run", "run_prefork", "warm_up"]

_FAULT_PAUSE_S: Final = 0.05


def run(config: WorkerConfig) -> NoReturn:
    """Be the AppWorker of ``config``'s container until it is told to quit; exits with 0 then."""
    # What was shared at fork stays shared: the collector would write to every page of it.
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
            worker.loop.turn()
        except Exception as error:  # noqa: BLE001  (a fault of ours must not end the user's programs)
            _tell(worker, error)
            time.sleep(_FAULT_PAUSE_S)
    if not config.isolated:
        worker.kill_everything()
    os._exit(0)


def _tell(worker: AppWorker, error: Exception) -> None:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "?"
    worker.after_fault(f"{type(error).__name__} at {where}: {error}"[:1000])
