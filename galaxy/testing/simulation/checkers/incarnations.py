"""Each incarnation is created once, leaders report it correctly, and stale epochs have no effect."""

from __future__ import annotations

from collections.abc import Iterable

from galaxy.agent.logic.effects import Effect, LaunchContainer, WriteLog
from galaxy.agent.logic.records import HostedContainer, HostedPhase
from galaxy.model.base import Struct
from galaxy.model.messages.container import ContainerOrders, ContainerState
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.messages.pod import PodOrders
from galaxy.model.stored.container import Container
from galaxy.model.stored.job import PodRecord
from galaxy.testing.simulation.checkers.violation import Violation


class IncarnationChecker:
    """Every incarnation is created once, on one host; only a created one is ever reported ready."""

    def __init__(self) -> None:
        self._created: dict[tuple[str, int], str] = {}
        self._known: set[tuple[str, int]] = set()
        self._began: set[tuple[str, int]] = set()
        self._finished: set[tuple[str, str]] = set()

    def created(self, host: str, container: str, incarnation: int) -> None:
        """Record that a container is created.

        Raises:
            Violation: it was created on another host, or its agent has stored that it was created.
        """
        key = container, incarnation
        other = self._created.setdefault(key, host)
        if other != host:
            raise Violation(
                f"{container} incarnation {incarnation} was created on {other} and is created again on {host}"
            )
        if key in self._known:
            raise Violation(f"{host} creates {container} incarnation {incarnation} a second time")

    def written(self, hosted: HostedContainer) -> None:
        """Record that an agent has stored whether an incarnation was created."""
        if hosted.phase in (HostedPhase.READY, HostedPhase.ENDED):
            self._known.add((hosted.container, hosted.incarnation))

    def finished(self, host: str, pod: str) -> None:
        """Record that an agent has stored that a batch pod has finished."""
        self._finished.add((host, pod))

    def began(self, host: str, container: str, incarnation: int) -> None:
        """Record that a program has started in this incarnation.

        Raises:
            Violation: the agent has stored that the pod has finished.
        """
        if (host, container) in self._finished:
            raise Violation(f"{container} is stored as finished on {host} and was started there again")
        self._began.add((container, incarnation))

    def current(self, rows: dict[str, Container]) -> None:
        """Check that what ResMan committed as ready was created there, in that incarnation."""
        for row in rows.values():
            if row.state is not ContainerState.READY:
                continue
            created = self._created.get((row.container, row.incarnation))
            if created != row.agent:
                raise Violation(
                    f"ResMan counts {row.container} incarnation {row.incarnation} on {row.agent} as ready;"
                    f" it was created {f'on {created}' if created else 'nowhere'}"
                )

    def up(self, pods: Iterable[PodRecord]) -> None:
        """Check that every pod that AppMaster counts as up has started in exactly this incarnation."""
        for pod in pods:
            if pod.up and (pod.pod, pod.incarnation) not in self._began:
                raise Violation(f"AppMaster counts {pod.pod} incarnation {pod.incarnation} as up")


class StaleEpochs:
    """An order of a stale epoch has no effect on its agent."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str], int] = {}

    def stepped(
        self, host: str, events: list[Struct], effects: tuple[Effect, ...], changed: Iterable[str]
    ) -> None:
        """Check one committed step of an agent: its events and effects.

        ``changed`` are the keys of its changed rows: containers, or container keys.

        Raises:
            Violation: an order of a stale epoch had an effect, or was not refused.
        """
        refused = sum(isinstance(effect, WriteLog) and effect.event == "order.refused" for effect in effects)
        orders = [event for event in events if isinstance(event, ContainerOrders | PodOrders)]
        for order in orders:
            if order.agent != host:
                continue
            role = RESMAN if isinstance(order, ContainerOrders) else APPMASTER
            highest = self._highest.get((host, role), 0)
            if order.epoch < highest:
                refused -= 1
            if refused < 0:
                raise Violation(f"{host} did not refuse epoch {order.epoch} of {role} after epoch {highest}")
            if order.epoch < highest and len(orders) == 1:
                done = {key.partition("_")[0] for key in changed} | {_about(effect) for effect in effects}
                if done & _named(order):
                    raise Violation(
                        f"{host} obeyed epoch {order.epoch} of {role} after epoch {highest}:"
                        f" {', '.join(sorted(done & _named(order)))}"
                    )
            self._highest[host, role] = max(highest, order.epoch)


def _about(effect: Effect) -> str:
    if isinstance(effect, LaunchContainer):
        hosted: HostedContainer = effect.hosted
        return hosted.container
    return str(getattr(effect, "container", ""))


def _named(order: ContainerOrders | PodOrders) -> set[str]:
    if isinstance(order, PodOrders):
        return {one.pod for one in order.orders}
    return {one.container for one in order.create} | {one.container for one in order.destroy}
