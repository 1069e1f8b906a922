"""What the first use of something costs, paid before there is anything to do.

The codec studies a message's type when it first meets it, which takes milliseconds for an order;
what it learns is kept with the type, so the launcher rehearses once for every process that it forks.
A spare rehearses again while it waits: the pages that an AppWorker writes to, be it but to count a
reference, are copied then and not on the way to a program.
"""

from __future__ import annotations

from typing import Final

from galaxy.model.base import decode, encode
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, PodOrder
from galaxy.model.messages.worker import (
    Exec,
    ExecStarted,
    FromWorker,
    Order,
    PackageAnswer,
    Quit,
    Report,
    RequestPackage,
    TaskCgroup,
    ToWorker,
    WorkerConfig,
    WorkerLog,
)
from galaxy.worker_entry.environment import environment
from galaxy.worker_entry.logic.events import OrderReceived, ProgramEnded, ProgramStarted
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe

_NAME: Final = "rehearsal"
REHEARSED: Final = WorkerConfig(
    container=_NAME,
    incarnation=1,
    host=_NAME,
    workspace="/",
    listen_fd=0,
    log_fd=0,
    tasks=(TaskCgroup(name=_NAME, procs_fds=(3, 4), oom_fd=5, pids_fd=6),),
)


def warm_up() -> None:
    """Play a program's start and end with an order that is nobody's, and speak every kind of message."""
    config = decode(encode(REHEARSED), WorkerConfig)
    task = TaskSpec(name=_NAME, cpu=CpuSpec(millicores=10), memory=MemorySpec(size=4 << 20), start="true")
    order = PodOrder(
        pod=_NAME, incarnation=1, generation=1, job=_NAME, index=0, revision=1, run=True, tasks=(task,)
    )
    for heard in (
        Order(order=order),
        PackageAnswer(request=1),
        Exec(request=1, task=_NAME, argv=("true",)),
        Quit(),
    ):
        decode(encode(heard), ToWorker)  # type: ignore[arg-type]
    pod = SupervisedPod(known=(_NAME,))
    ended = ProgramEnded(task=_NAME, run=1, exit=Exit(at_s=0.0, code=1))
    for event in (OrderReceived(order=order), ProgramStarted(task=_NAME, run=1, at_s=0.0), ended):
        pod, _ = step(pod, event, 0.0)
        wake_s(pod)
    report = Report(pod=observe(pod, pod_id=_NAME, incarnation=1, pid=0, ports={}))
    want = RequestPackage(request=1, source="file:///rehearsal", version="1")
    for said in (report, want, ExecStarted(request=1), WorkerLog(reason=Reason(code=_NAME))):
        decode(encode(said), FromWorker)  # type: ignore[arg-type]
    environment(config, order, task)
