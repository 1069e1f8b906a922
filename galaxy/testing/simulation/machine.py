"""A machine's containers: they outlive the agent, and end when the machine does."""

from __future__ import annotations

from collections.abc import Callable

from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    RunningContainer,
    WorkerConnected,
    WorkerLost,
    WorkerReported,
)
from galaxy.agent.logic.records import HostedContainer
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.world import World
from galaxy.worker_entry.logic.events import OrderReceived, QuitRequested

Witness = Callable[[str, SimulatedAppWorker, str, TaskSpec], None]
"""Told of every start and end of a program: host, AppWorker, what happened, the task."""
Tell = Callable[[float, Struct], None]
"""Tells an agent of something, so many seconds later."""


class Machine:
    """What the kernel and the launcher of one host do, whether or not its agent lives.

    ``tell`` reaches the agent that lives then, if one does; ``made`` hears of every container
    and its incarnation, before it begins to live.
    """

    def __init__(
        self, world: World, *, host: str, witness: Witness, tell: Tell, made: Callable[[str, int], None]
    ) -> None:
        self.living: dict[str, SimulatedAppWorker] = {}
        self._world = world
        self._host = host
        self._witness = witness
        self._tell = tell
        self._made = made
        self._pids = 1000

    def seen(self) -> tuple[RunningContainer, ...]:
        """Return what an agent that starts finds here."""
        return tuple(
            RunningContainer(container=one.container, incarnation=one.incarnation, pid=one.pid)
            for one in self.living.values()
        )

    def launch(self, hosted: HostedContainer) -> None:
        """The launcher makes a container."""
        container, incarnation = hosted.container, hosted.incarnation
        if hosted.key in self.living:
            return
        if self._world.strikes("launch_fails"):
            reason = Reason(code="launch", message="the simulator says no")
            self._tell(
                0.0, ContainerLaunchFailed(container=container, incarnation=incarnation, reason=reason)
            )
            return
        self._made(container, incarnation)
        self._pids += 1
        self.living[hosted.key] = SimulatedAppWorker(
            self._world, container=container, incarnation=incarnation, host=self._host,
            demand=hosted.order.demand, ports=hosted.ports, uid=hosted.uid, pid=self._pids,
            witness=self._witness, ended=self._ended,
        )  # fmt: skip
        self._tell(0.0, ContainerLaunched(container=container, incarnation=incarnation, pid=self._pids))

    def destroy(self, container: str, incarnation: int) -> None:
        """A container and all in it is killed."""
        worker = self.living.pop(container_key(container, incarnation), None)
        if worker is not None:
            worker.agent = None
            worker.die()
        self._tell(0.0, ContainerDestroyed(container=container, incarnation=incarnation))

    def connect(self, container: str, incarnation: int, heard: Tell) -> None:
        """Tell an agent what an AppWorker reports from now on; ``heard`` is deaf once that agent is gone."""
        worker = self.living.get(container_key(container, incarnation))
        if worker is None:
            return

        def reported(pod: ObservedPod) -> None:
            heard(0.001, WorkerReported(container=container, incarnation=incarnation, pod=pod))

        worker.agent = reported
        heard(0.001, WorkerConnected(container=container, incarnation=incarnation))
        self._world.after(0.002, lambda: reported(worker.observe()) if worker.alive else None)

    def disconnect(self, container: str, incarnation: int) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            worker.agent = None

    def disconnect_all(self) -> None:
        """No AppWorker has an agent any more: its process is gone."""
        for worker in self.living.values():
            worker.agent = None

    def deliver(self, container: str, incarnation: int, order: PodOrder) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            feed = worker.feed
            self._world.after(0.001, lambda: feed(OrderReceived(order=order)))

    def quit(self, container: str, incarnation: int, stop_timeout_s: float) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            worker.feed(QuitRequested(stop_timeout_s=stop_timeout_s))

    def chances(self) -> None:
        """Once a second: what may happen to containers and programs."""
        for worker in list(self.living.values()):
            if self._world.strikes("worker_dies"):
                worker.die()
            elif self._world.strikes("program_dies"):
                worker.program_dies()

    def power_off(self) -> None:
        for worker in list(self.living.values()):
            worker.die()
        self.living.clear()

    def _ended(self, worker: SimulatedAppWorker) -> None:
        """PID 1 is gone, by itself or not."""
        key = container_key(worker.container, worker.incarnation)
        if self.living.get(key) is worker:
            del self.living[key]
            reason = Reason(code="exit", message="PID 1 ended")
            container, incarnation = worker.container, worker.incarnation
            self._tell(0.0, ContainerEnded(container=container, incarnation=incarnation, reason=reason))
            self._tell(0.0, WorkerLost(container=container, incarnation=incarnation))
