"""Events wait for the agent's disk in a bounded list; those that matter are never dropped."""

from __future__ import annotations

from galaxy.agent.logic.events import (
    ContainerDestroyed,
    PortsScanned,
    WorkerConnected,
    WorkerReported,
    compact,
)
from galaxy.model.messages.pod import ObservedPod, PodState

SCAN = PortsScanned(listening=frozenset(), used=frozenset())


def report(pod: str, incarnation: int, state: PodState) -> WorkerReported:
    observed = ObservedPod(pod=pod, incarnation=incarnation, generation=1, state=state)
    return WorkerReported(container=pod, incarnation=incarnation, pod=observed)


def test_last_report_of_each_incarnation_and_every_other_event_are_kept_in_order() -> None:
    gone = ContainerDestroyed(container="web.0", incarnation=1)
    connected = WorkerConnected(container="web.0", incarnation=2)
    events = [
        report("web.0", 1, PodState.RUNNING),
        SCAN,
        gone,
        report("web.0", 2, PodState.DEPLOYING),
        connected,
        report("web.1", 1, PodState.RUNNING),
        report("web.0", 2, PodState.RUNNING),
    ]
    assert compact(events) == [events[0], gone, connected, events[5], events[6]]


def test_events_stay_bounded_however_often_the_disk_fails() -> None:
    waiting = compact([])
    for _ in range(1_000):
        waiting = compact([*waiting, SCAN, report("web.0", 1, PodState.RUNNING)])
    assert len(waiting) == 1
