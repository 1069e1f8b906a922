"""What the agent knows: durable tables, and the little that a restart may forget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from galaxy.agent.logic.effects import Effect, RemoveContainer, WriteLog
from galaxy.agent.logic.records import (
    AcceptedEpoch,
    DestroyedContainer,
    FinishedPod,
    HostedContainer,
    HostedPhase,
    container_key,
)
from galaxy.agent.logic.reports import Outbox
from galaxy.model.base import Struct
from galaxy.model.messages.digest import digest_of_container, digest_of_pod
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodState
from galaxy.model.stored.table import Table

N = TypeVar("N", bound=Struct)

REMEMBERED_MAX: Final = 10_000
"""Tombstones and finished pods, each; the oldest tenth goes when there are more."""

ORPHANS_MAX: Final = 1_000
"""Pod orders whose container has not been ordered here (yet)."""


ON_THE_WAY: Final = frozenset({PodState.PENDING, PodState.DEPLOYING, PodState.STOPPING})


class HostState:
    """Tables by name, effects gathered in this step, and what is owed to the leaders.

    Everything beside the tables may be marked twice or lost with the process without harm: a
    step that could not be committed is simply run again.
    """

    def __init__(self) -> None:
        self.containers: Table[HostedContainer] = Table(
            "containers",
            HostedContainer,
            {"container": lambda hosted: hosted.container, "phase": lambda hosted: hosted.phase},
        )
        self.destroyed: Table[DestroyedContainer] = Table("destroyed", DestroyedContainer)
        self.orders: Table[PodOrder] = Table("orders", PodOrder)
        self.pods: Table[ObservedPod] = Table("pods", ObservedPod)
        self.finished: Table[FinishedPod] = Table("finished", FinishedPod)
        self.epochs: Table[AcceptedEpoch] = Table("epochs", AcceptedEpoch)
        self.resman = Outbox()
        self.appmaster = Outbox()
        self.effects: list[Effect] = []
        self.pids: dict[str, int] = {}
        self.usage: dict[str, tuple[int, int]] = {}
        self.connected: set[str] = set()
        self.redis_ahead_s: float | None = None
        """Redis' clock less ``now_s``; None until it was seen."""
        self.order_expiry_s: dict[str, float] = {}
        """Until when (``now_s``) the order for a pod may be handed over; none that a restart left."""
        self.full_orders: dict[str, PodOrder] = {}
        """The orders of ``fresh``, with the values of secrets that the table goes without."""
        self.kill_deadlines_s: dict[str, float] = {}
        """Lives asked to quit, and when they are killed; seconds of ``now_s``."""
        self._ready: IncrementalDigest[HostedContainer] = IncrementalDigest(_fold_held)
        self._reported: IncrementalDigest[ObservedPod] = IncrementalDigest(_fold_pod)
        self._serial = 0

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        every = (self.containers, self.destroyed, self.orders, self.pods, self.finished, self.epochs)
        return {table.name: table for table in every}

    def resume(self) -> None:
        """Carry on where the loaded tables end."""
        serials = [row.serial for row in self.destroyed.values()]
        serials += [row.serial for row in self.finished.values()]
        self._serial = max(serials, default=0)

    def accepts_epoch(self, role: str, epoch: int) -> bool:
        """Return whether a command of this epoch counts, and remember the highest one."""
        seen = self.epochs.get(role)
        if seen is not None and epoch < seen.epoch:
            text = f"epoch {epoch} of {role} is over; {seen.epoch} leads"
            self.effects.append(WriteLog(event="order.refused", subject=role, text=text))
            return False
        self.epochs.put(role, AcceptedEpoch(role=role, epoch=epoch))
        return True

    def is_expired(self, until_s: float, now_s: float, subject: str) -> bool:
        """Return whether an order that expires at ``until_s`` of Redis' clock may have expired.

        It may have waited while this host was cut off, and what it asks for may run elsewhere now.
        An order without an expiry is refused, and so is any order before Redis' clock is known.
        """
        if until_s and (self.redis_ahead_s is not None and now_s + self.redis_ahead_s <= until_s):
            return False
        self.effects.append(
            WriteLog(event="order.void", subject=subject, text="came too late, or before a clock")
        )
        return True

    def incarnations(self, container: str) -> tuple[HostedContainer, ...]:
        """Return every life of a container that is hosted, lowest incarnation first."""
        rows = (self.containers[key] for key in self.containers.where("container", container))
        return tuple(sorted(rows, key=lambda hosted: hosted.incarnation))

    def put(self, hosted: HostedContainer) -> None:
        self.containers.put(hosted.key, hosted)
        self.resman.mark(hosted.key, urgent=hosted.phase in (HostedPhase.READY, HostedPhase.ENDED))

    def record_destroyed(self, container: str, incarnation: int) -> None:
        """Remember that no life of ``container`` up to ``incarnation`` may begin any more."""
        there = self.destroyed.get(container)
        if incarnation < 1 or (there is not None and there.incarnation >= incarnation):
            return
        stone = DestroyedContainer(container=container, incarnation=incarnation, serial=self._next())
        self.destroyed.put(container, stone)
        _trim(self.destroyed)

    def destroyed_up_to(self, container: str) -> int:
        """Return the highest incarnation that is destroyed for good; 0 for none."""
        stone = self.destroyed.get(container)
        return 0 if stone is None else stone.incarnation

    def remove(self, hosted: HostedContainer) -> None:
        """Drop a life whose end is complete, with its pod and its order."""
        self.containers.drop(hosted.key)
        self.record_destroyed(hosted.container, hosted.incarnation)
        self.resman.mark(hosted.key)
        order, pod = self.orders.get(hosted.container), self.pods.get(hosted.container)
        if order is not None and order.incarnation <= hosted.incarnation:
            self._drop_order(hosted.container)
        if pod is not None and pod.incarnation <= hosted.incarnation:
            self.pods.drop(hosted.container)
        self.drop_volatile(hosted.key)

    def drop_volatile(self, key: str) -> None:
        """Forget what only a living container has."""
        self.pids.pop(key, None)
        self.usage.pop(key, None)
        self.kill_deadlines_s.pop(key, None)
        self.connected.discard(key)

    def remove_from_host(self, hosted: HostedContainer) -> None:
        self.effects.append(RemoveContainer(container=hosted.container, incarnation=hosted.incarnation))

    def record_pod(self, pod: ObservedPod) -> None:
        """Take in the newest state of a pod; it is told only when more than its usage changed."""
        there = self.pods.get(pod.pod)
        if there == pod:
            return
        if pod.state is PodState.FINISHED:
            self.finished.put(pod.pod, FinishedPod(pod=pod, serial=self._next()))
            _trim(self.finished)
        self.pods.put(pod.pod, pod)
        # What leaves a settled state is as urgent as what reaches one: endpoints hang on it.
        settled = there is not None and there.state not in ON_THE_WAY
        self.appmaster.mark(pod.pod, urgent=settled or pod.state not in ON_THE_WAY)

    def trim_orders(self) -> None:
        """Keep orders without a container bounded; AppMaster sends again what was dropped."""
        if len(self.orders) <= len(self.containers) + ORPHANS_MAX:
            return
        orphans = [pod for pod in self.orders if not self.containers.count("container", pod)]
        for pod in orphans[: len(orphans) - ORPHANS_MAX]:
            self._drop_order(pod)

    def _drop_order(self, pod: str) -> None:
        self.orders.drop(pod)
        self.order_expiry_s.pop(pod, None)
        self.full_orders.pop(pod, None)

    def digests(self) -> tuple[int, int]:
        """Return the digests of ready containers and of pods, as heartbeats carry them."""
        ready = (self.containers[key] for key in self.containers.where("phase", HostedPhase.READY))
        return self._ready.digest(ready), self._reported.digest(self.pods.values())

    def pid_of(self, pod: ObservedPod) -> int:
        return self.pids.get(container_key(pod.pod, pod.incarnation), 0)

    def _next(self) -> int:
        self._serial += 1
        return self._serial


class IncrementalDigest(Generic[N]):
    """A digest over rows of which few are new each time: only those are folded anew."""

    def __init__(self, fold: Callable[[N], int]) -> None:
        self._fold = fold
        self._known: dict[int, tuple[N, int]] = {}

    def digest(self, rows: Iterable[N]) -> int:
        """Return the XOR over ``rows``; a row that was here last time is known by its identity."""
        known, digest = {}, 0
        for row in rows:
            folded = known[id(row)] = self._known.get(id(row)) or (row, self._fold(row))
            digest ^= folded[1]
        self._known = known  # Holds the rows, so that no other one can have their identity.
        return digest


def _fold_held(hosted: HostedContainer) -> int:
    return digest_of_container(hosted.container, hosted.incarnation)


def _fold_pod(pod: ObservedPod) -> int:
    return digest_of_pod(pod.pod, pod.incarnation, pod.generation, pod.state, pod.healthy)


def _trim(table: Table[DestroyedContainer] | Table[FinishedPod]) -> None:
    if len(table) <= REMEMBERED_MAX:
        return
    oldest = sorted(table, key=lambda key: table[key].serial)
    for key in oldest[: REMEMBERED_MAX // 10]:
        table.drop(key)
