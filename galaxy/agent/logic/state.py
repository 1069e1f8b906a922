"""The agent's state: durable tables, and volatile facts that a restart may lose."""

from __future__ import annotations

import math
from typing import Any, Final

from galaxy.agent.logic.effects import Effect, RemoveContainer, WriteLog
from galaxy.agent.logic.records import (
    AcceptedEpoch,
    DestroyedContainer,
    FinishedPod,
    HostedContainer,
    HostedPhase,
)
from galaxy.agent.logic.reports import Outbox
from galaxy.ids import container_key
from galaxy.model.messages.container import ObservedContainer, ObservedContainerState, Reason
from galaxy.model.messages.digest import digest_of_container, digest_of_pod
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodState
from galaxy.model.stored.table import Table

DIGEST: Final = "digest"
"""Name of the sums of a table that heartbeats carry."""

ALL: Final = "all"
"""What those sums are indexed by: each is over the whole table."""

KEPT_MAX: Final = 10_000
"""Rows of destroyed containers and of finished pods, each; beyond it the oldest tenth is dropped."""

ORPHAN_ORDERS_MAX: Final = 1_000
"""Pod orders whose container has not been ordered here (yet)."""

REFUSED_MAX: Final = 1_000
"""Refused orders that are reported. When there are more, the oldest are forgotten."""

TRANSITIONAL: Final = frozenset({PodState.PENDING, PodState.DEPLOYING, PodState.STOPPING})


class HostState:
    """Tables by name, the effects of the current step, and one outbox per leader.

    Everything outside the tables may be recorded twice, or lost with the process, without harm: a
    step that could not be committed is run again.
    """

    def __init__(self) -> None:
        self.containers: Table[HostedContainer] = Table(
            "containers",
            HostedContainer,
            {"container": lambda hosted: hosted.container, "phase": lambda hosted: hosted.phase},
            {DIGEST: _ready_part},
        )
        self.destroyed: Table[DestroyedContainer] = Table("destroyed", DestroyedContainer)
        self.orders: Table[PodOrder] = Table("orders", PodOrder)
        """Pod orders without the values of secrets, which are never written to disk."""
        self.pods: Table[ObservedPod] = Table("pods", ObservedPod, sums={DIGEST: _pod_part})
        self.finished: Table[FinishedPod] = Table("finished", FinishedPod)
        self.epochs: Table[AcceptedEpoch] = Table("epochs", AcceptedEpoch)
        self.resman = Outbox()
        self.appmaster = Outbox()
        self.refused: dict[str, ObservedContainer] = {}
        """By container key: what is reported about orders that were refused for their numbers."""
        self.effects: list[Effect] = []
        self.pids: dict[str, int] = {}
        """By container key: the host's pid of PID 1."""
        self.usage: dict[str, tuple[int, int]] = {}
        """By container key: millicores and bytes."""
        self.connected: set[str] = set()
        """Keys of containers whose AppWorker is connected."""
        self.redis_ahead_s: float | None = None
        """Redis' clock minus ``now_s``; None until it was read."""
        self.order_expiry_s: dict[str, float] = {}
        """By pod: when its order expires (``now_s``). Orders read from disk have no entry."""
        self.full_orders: dict[str, PodOrder] = {}
        """The orders of ``order_expiry_s`` with the values of secrets."""
        self.kill_deadlines_s: dict[str, float] = {}
        """By key of a container that was asked to quit: when to kill it (``now_s``)."""
        self._serial = 0
        every = (self.containers, self.destroyed, self.orders, self.pods, self.finished, self.epochs)
        self.tables: dict[str, Table[Any]] = {table.name: table for table in every}

    def resume(self) -> None:
        """Continue numbering where the loaded tables end."""
        serials = [row.serial for row in self.destroyed.values()]
        serials += [row.serial for row in self.finished.values()]
        self._serial = max(serials, default=0)

    # ---- validity of orders

    def accepts_epoch(self, role: str, epoch: int) -> bool:
        """Return whether orders of ``epoch`` are obeyed, and record the highest one."""
        seen = self.epochs.get(role)
        if seen is not None and epoch < seen.epoch:
            text = f"epoch {epoch} of {role} is stale; epoch {seen.epoch} leads"
            self.effects.append(WriteLog(event="order.refused", subject=role, text=text))
            return False
        self.epochs.put(role, AcceptedEpoch(role=role, epoch=epoch))
        return True

    def is_expired(self, until_s: float, now_s: float, subject: str) -> bool:
        """Return whether an order that expires at ``until_s`` of Redis' clock may have expired.

        It may have waited while this host was cut off, and the containers may run elsewhere now.
        An order without an expiry (0) is refused, and so is any order before Redis' clock is known.
        """
        ahead_s = self.redis_ahead_s
        if ahead_s is not None and 0.0 < until_s < math.inf and now_s + ahead_s <= until_s:
            return False
        text = "it arrived too late, without an expiry, or before Redis' clock was read"
        self.effects.append(WriteLog(event="order.expired", subject=subject, text=text))
        return True

    def refuse(self, container: str, incarnation: int, problem: str) -> None:
        """Report to ResMan that an order for a container is impossible, and log it."""
        key = container_key(container, incarnation)
        self.effects.append(WriteLog(event="order.refused", subject=key, text=problem))
        reason = Reason(code="invalid-order", message=f"the order is impossible: {problem}")
        ended = ObservedContainerState.ENDED
        self.refused.pop(key, None)
        self.refused[key] = ObservedContainer(
            container=container, incarnation=incarnation, state=ended, reason=reason
        )
        while len(self.refused) > REFUSED_MAX:
            del self.refused[next(iter(self.refused))]
        self.resman.mark(key)

    # ---- containers

    def incarnations(self, container: str) -> tuple[HostedContainer, ...]:
        """Return every incarnation of a container that is on this host, lowest first."""
        rows = (self.containers[key] for key in self.containers.where("container", container))
        return tuple(sorted(rows, key=lambda hosted: hosted.incarnation))

    def put(self, hosted: HostedContainer) -> None:
        self.containers.put(hosted.key, hosted)
        self.resman.mark(hosted.key, urgent=hosted.phase in (HostedPhase.READY, HostedPhase.ENDED))

    def drop_container(self, hosted: HostedContainer) -> None:
        """Drop an incarnation that is gone from the host, with its pod and its order."""
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
        """Drop the facts that only a running container has."""
        self.pids.pop(key, None)
        self.usage.pop(key, None)
        self.kill_deadlines_s.pop(key, None)
        self.connected.discard(key)

    def request_removal(self, hosted: HostedContainer) -> None:
        """Make the launcher kill and remove a container; ``ContainerDestroyed`` follows."""
        self.effects.append(RemoveContainer(container=hosted.container, incarnation=hosted.incarnation))

    def record_destroyed(self, container: str, incarnation: int) -> None:
        """Record that no incarnation of ``container`` up to ``incarnation`` may be launched any more."""
        if incarnation < 1 or self.destroyed_up_to(container) >= incarnation:
            return
        row = DestroyedContainer(container=container, incarnation=incarnation, serial=self._next_serial())
        self.destroyed.put(container, row)
        _trim(self.destroyed)

    def destroyed_up_to(self, container: str) -> int:
        """Return the highest incarnation that is destroyed; 0 for none."""
        row = self.destroyed.get(container)
        return 0 if row is None else row.incarnation

    # ---- pods

    def record_pod(self, pod: ObservedPod) -> None:
        """Store the newest state of a pod, and report it if it changed."""
        before = self.pods.get(pod.pod)
        if before == pod:
            return
        if pod.state is PodState.FINISHED:
            self.finished.put(pod.pod, FinishedPod(pod=pod, serial=self._next_serial()))
            _trim(self.finished)
        self.pods.put(pod.pod, pod)
        # Leaving a settled state is as urgent as reaching one: endpoints depend on both.
        was_settled = before is not None and before.state not in TRANSITIONAL
        self.appmaster.mark(pod.pod, urgent=was_settled or pod.state not in TRANSITIONAL)

    def trim_orders(self) -> None:
        """Drop the oldest orders without a container beyond a bound; AppMaster resends them."""
        if len(self.orders) <= len(self.containers) + ORPHAN_ORDERS_MAX:
            return
        orphans = [pod for pod in self.orders if not self.containers.count("container", pod)]
        for pod in orphans[: len(orphans) - ORPHAN_ORDERS_MAX]:
            self._drop_order(pod)

    def _drop_order(self, pod: str) -> None:
        self.orders.drop(pod)
        self.order_expiry_s.pop(pod, None)
        self.full_orders.pop(pod, None)

    def pid_of(self, pod: ObservedPod) -> int:
        """Return the host's pid of the AppWorker of ``pod``; 0 if it is not known."""
        return self.pids.get(container_key(pod.pod, pod.incarnation), 0)

    def digests(self) -> tuple[int, int]:
        """Return the digests of ready containers and of pods, as heartbeats carry them."""
        return self.containers.sums(DIGEST).get(ALL, 0), self.pods.sums(DIGEST).get(ALL, 0)

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial


def _ready_part(hosted: HostedContainer) -> tuple[str, int] | None:
    """Return what a container adds to the digest of ready ones."""
    if hosted.phase is not HostedPhase.READY:
        return None
    return ALL, digest_of_container(hosted.container, hosted.incarnation)


def _pod_part(pod: ObservedPod) -> tuple[str, int]:
    """Return what a pod adds to the digest of pods."""
    return ALL, digest_of_pod(pod.pod, pod.incarnation, pod.generation, pod.state, pod.healthy)


def _trim(table: Table[DestroyedContainer] | Table[FinishedPod]) -> None:
    if len(table) <= KEPT_MAX:
        return
    oldest = sorted(table, key=lambda key: table[key].serial)
    for key in oldest[: KEPT_MAX // 10]:
        table.drop(key)
