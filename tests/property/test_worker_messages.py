"""The logic of AppWorker's pod that gets orders and events with absurd values never raises."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.base import decode, encode
from galaxy.model.messages.pod import PodOrder
from galaxy.worker_entry.logic import events
from galaxy.worker_entry.logic.effects import KillTask, StartProgram
from galaxy.worker_entry.logic.events import Event, OrderReceived
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe
from tests.property.effort import examples
from tests.property.hostile_messages import hostile
from tests.unit.worker_entry.conftest import make_spec

KINDS = (
    events.QuitRequested, events.Ticked, events.PackagesStaged, events.PackagesPlaced, events.DeployFailed,
    events.ProgramStarted, events.ProgramEnded, events.TaskEmptied, events.ProbeAnswered,
    events.StopCommandEnded, events.ReloadEnded,
)  # fmt: skip


def about_us(event: Any, run: int) -> Any:
    """Return the event with the name of the pod's only task and the number ``run``."""
    names = set(event.__struct_fields__)
    changes: dict[str, Any] = {"task": "main"} if "task" in names else {}
    changes |= {name: run for name in ("run", "deploy", "probe") if name in names}
    return msgspec.structs.replace(event, **changes)


def plausible(order: PodOrder, generation: int) -> OrderReceived:
    return OrderReceived(order=msgspec.structs.replace(order, generation=generation, tasks=(make_spec(),)))


EVENTS: st.SearchStrategy[Event] = st.one_of(
    hostile(PodOrder).map(lambda order: OrderReceived(order=order)),
    st.builds(plausible, hostile(PodOrder), st.integers(0, 9)),
    st.sampled_from(KINDS).flatmap(hostile),
    st.builds(about_us, st.sampled_from(KINDS).flatmap(hostile), st.integers(0, 4)),
    st.builds(about_us, st.sampled_from(KINDS).flatmap(hostile), st.integers(0, 4)),
)


@examples(120)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 9.0, 700.0]), EVENTS), max_size=14))
def test_no_events_make_a_pod_raise_or_start_a_program_twice(timeline: list[tuple[float, Event]]) -> None:
    pod, now_s, runs = SupervisedPod(known=("main",)), 1000.0, set()
    for seconds, event in timeline:
        now_s += seconds
        before = encode(pod)
        after, effects = step(pod, event, now_s)
        assert encode(pod) == before, "the pod was modified"
        assert not (pod.ended and effects), "an ended pod has effects"
        for effect in effects:
            if isinstance(effect, StartProgram):
                assert (effect.task, effect.run) not in runs, "one run started twice"
                runs.add((effect.task, effect.run))
                assert effect.task in pod.known
            if isinstance(effect, KillTask):
                assert any(task.name == effect.task for task in after.tasks)
            assert decode(encode(effect), type(effect)) == effect
        pod = after
        report = observe(pod, pod_id="web.0", incarnation=1, pid=1, ports={})
        assert decode(encode(report), type(report)) == report
        assert wake_s(pod) is None or isinstance(wake_s(pod), float)
