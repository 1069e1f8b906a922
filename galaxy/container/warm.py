"""What the first use of something costs, paid once in the launcher and not in every container.

The codec studies a message's type when it first meets it, which takes milliseconds for an order;
what it learns is kept with the type, and so is shared by every process forked afterwards.
"""

from __future__ import annotations

from galaxy.model.base import decode, encode
from galaxy.model.container import Reason
from galaxy.model.pod import Exit, PodFound, PodOrder, PodState, TaskFound, TaskState
from galaxy.model.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.worker import (
    Exec,
    ExecStarted,
    FromWorker,
    Order,
    Package,
    Quit,
    Report,
    ToWorker,
    WantPackage,
    WorkerLog,
)


def warm_up() -> None:
    """Code and decode one of each message between agent and AppWorker."""
    task = TaskSpec(name="warm", cpu=CpuSpec(millicores=10), memory=MemorySpec(size=4 << 20), start="true")
    order = PodOrder(
        pod="warm.0", incarnation=1, generation=1, job="warm", index=0, revision=1, run=True, tasks=(task,)
    )
    reason = Reason(code="warm")
    found = TaskFound(name="warm", state=TaskState.RUNNING, last_exit=Exit(at_s=0.0, code=0), reason=reason)
    pod = PodFound(pod="warm.0", incarnation=1, generation=1, state=PodState.RUNNING, tasks=(found,))
    for heard in (
        Order(order=order),
        Package(request=1),
        Exec(request=1, task="warm", argv=("true",)),
        Quit(),
    ):
        decode(encode(heard), ToWorker)  # type: ignore[arg-type]
    want = WantPackage(request=1, source="file:///warm", version="1")
    for said in (Report(pod=pod), want, ExecStarted(request=1), WorkerLog(reason=reason)):
        decode(encode(said), FromWorker)  # type: ignore[arg-type]
