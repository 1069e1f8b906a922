"""The pod's logic without processes: tests feed it orders and events, and read its effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.messages.pod import Exit, PodOrder
from galaxy.worker_entry.logic.effects import Effect
from galaxy.worker_entry.logic.events import Event, OrderReceived, ProgramEnded, Ticked
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod, SupervisedTask


def make_spec(start: str = "run", name: str = "main", **more: Any) -> TaskSpec:
    limits = {"cpu": CpuSpec(millicores=100), "memory": MemorySpec(size=64 * 1024 * 1024)}
    return TaskSpec(name=name, start=start, **{**limits, **more})


class World:
    """Feeds events to the logic and keeps all effects. Time passes only in ``wait``."""

    def __init__(self, *known: str) -> None:
        self.pod = SupervisedPod(known=known or ("main",))
        self.now_s = 1000.0
        self.generation = 0
        self.effects: list[Effect] = []

    def feed(self, event: Event) -> tuple[Effect, ...]:
        self.pod, effects = step(self.pod, event, self.now_s)
        self.effects += effects
        return effects

    def order(self, *tasks: TaskSpec, run: bool = True, **more: Any) -> tuple[Effect, ...]:
        self.generation = more.pop("generation", self.generation + 1)
        more.setdefault("revision", self.generation)
        order = PodOrder(
            pod="web.0", incarnation=1, generation=self.generation, job="web", index=0, run=run, tasks=tasks,
            **more,
        )  # fmt: skip
        return self.feed(OrderReceived(order=order))

    def wait(self) -> tuple[Effect, ...]:
        """Advance the time to the next deadline of the logic."""
        at_s = wake_s(self.pod)
        assert at_s is not None, "nothing is due"
        self.now_s = max(self.now_s, at_s)
        return self.feed(Ticked())

    def exit(self, code: int | None = None, signal: int | None = None, **more: Any) -> tuple[Effect, ...]:
        exit_ = Exit(at_s=self.now_s, code=code, signal=signal, **more)
        return self.feed(ProgramEnded(task="main", run=self.task.run, exit=exit_))

    @property
    def task(self) -> SupervisedTask:
        return self.pod.tasks[0]


@pytest.fixture
def spec() -> Callable[..., TaskSpec]:
    return make_spec


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World


def kinds(effects: Sequence[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


@pytest.fixture(name="kinds")
def kinds_fixture() -> Callable[[Sequence[Effect]], list[str]]:
    return kinds
