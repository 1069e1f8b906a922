"""Each life of a slot is made once, leaders tell the truth of it, and nobody obeys an old epoch."""

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
    """Every life of a slot is made once and in one place; only one that was made is ever current."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], str] = {}
        self._known: set[tuple[str, int]] = set()
        self._began: set[tuple[str, int]] = set()
        self._finished: set[tuple[str, str]] = set()

    def made(self, host: str, container: str, incarnation: int) -> None:
        """Hear that a container begins to live.

        Raises:
            Violation: this life has been elsewhere, or its agent knew already that it had been.
        """
        life = container, incarnation
        other = self._made.setdefault(life, host)
        if other != host:
            raise Violation(f"{container} incarnation {incarnation} lived on {other} and is made on {host}")
        if life in self._known:
            raise Violation(f"{host} makes {container} incarnation {incarnation} a second time")

    def written(self, hosted: HostedContainer) -> None:
        """Hear what an agent has written of a life: it knows now whether that was made."""
        if hosted.phase in (HostedPhase.READY, HostedPhase.ENDED):
            self._known.add((hosted.container, hosted.incarnation))

    def finished(self, host: str, pod: str) -> None:
        """Hear that an agent has written that a batch pod is done."""
        self._finished.add((host, pod))

    def began(self, host: str, container: str, incarnation: int) -> None:
        """Hear that a program started in this life.

        Raises:
            Violation: its own agent knows that it was done.
        """
        if (host, container) in self._finished:
            raise Violation(f"{container} is done, {host} has it in writing, and it was started there again")
        self._began.add((container, incarnation))

    def current(self, rows: dict[str, Container]) -> None:
        """Check that what ResMan has committed as ready was made, there and as that life."""
        for row in rows.values():
            if row.state is not ContainerState.READY:
                continue
            made = self._made.get((row.container, row.incarnation))
            if made != row.agent:
                raise Violation(
                    f"ResMan takes {row.container} incarnation {row.incarnation} on {row.agent} for ready;"
                    f" it was made {f'on {made}' if made else 'nowhere'}"
                )

    def up(self, pods: Iterable[PodRecord]) -> None:
        """Check that a pod that AppMaster counts as up has begun to run in just this life."""
        for pod in pods:
            if pod.up and (pod.pod, pod.incarnation) not in self._began:
                raise Violation(f"AppMaster takes {pod.pod} incarnation {pod.incarnation} for up")


class Obedience:
    """No agent does anything because of an order whose epoch is over, as it was told itself."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str], int] = {}

    def stepped(
        self, host: str, events: list[Struct], effects: tuple[Effect, ...], changed: Iterable[str]
    ) -> None:
        """Take in what one written step of an agent was given, and what followed from it.

        ``changed`` are the keys of its changed rows: containers, or lives of containers.

        Raises:
            Violation: an order of an epoch that is over had consequences, or was not refused.
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
