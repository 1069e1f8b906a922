"""Warming up the codec and the pod's logic before there is anything to run.

msgspec analyses a message type on first use, which takes milliseconds for an order. The result is
stored with the type, so the launcher warms up once for all processes that it forks. A warm
process warms up again while it waits: pages that AppWorker will write to, if only to count a
reference, are then copied ahead of time instead of during a launch.
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

_NAME: Final = "warmup"
SAMPLE_CONFIG: Final = WorkerConfig(
    container=_NAME,
    incarnation=1,
    host=_NAME,
    workspace="/",
    listen_fd=0,
    log_fd=0,
    tasks=(TaskCgroup(name=_NAME, procs_fds=(3, 4), oom_fd=5, pids_fd=6),),
)
"""A config that belongs to no container."""


def warm_up() -> None:
    """Run the logic through a program's start and end, and encode and decode every kind of packet."""
    config = decode(encode(SAMPLE_CONFIG), WorkerConfig)
    task = TaskSpec(name=_NAME, cpu=CpuSpec(millicores=10), memory=MemorySpec(size=4 << 20), start="true")
    order = PodOrder(
        pod=_NAME, incarnation=1, generation=1, job=_NAME, index=0, revision=1, run=True, tasks=(task,)
    )
    for packet_in in (
        Order(order=order),
        PackageAnswer(request=1),
        Exec(request=1, task=_NAME, argv=("true",)),
        Quit(),
    ):
        decode(encode(packet_in), ToWorker)  # type: ignore[arg-type]
    pod = SupervisedPod(known=(_NAME,))
    ended = ProgramEnded(task=_NAME, run=1, exit=Exit(at_s=0.0, code=1))
    for event in (OrderReceived(order=order), ProgramStarted(task=_NAME, run=1, at_s=0.0), ended):
        pod, _ = step(pod, event, 0.0)
        wake_s(pod)
    report = Report(pod=observe(pod, pod_id=_NAME, incarnation=1, pid=0, ports={}))
    request = RequestPackage(request=1, source="file:///warmup", version="1")
    for packet_out in (report, request, ExecStarted(request=1), WorkerLog(reason=Reason(code=_NAME))):
        decode(encode(packet_out), FromWorker)  # type: ignore[arg-type]
    environment(config, order, task)
