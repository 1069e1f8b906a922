"""An agent under lost, doubled, late and reordered messages, crashes and failing disks, by seed.

The resource manager and the launcher here are small models with rules of their own; the logic
is the real one. Never: two incarnations of a container at once, a destroyed incarnation again, one
port twice. Eventually: the running containers are the desired ones, and the leader knows it.
"""

from __future__ import annotations

import random

import pytest

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import LaunchContainer, RemoveContainer
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    HostInspected,
    PortsUnavailable,
    RedisClockRead,
    ReportPublished,
    RunningContainer,
)
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import (
    ContainerOrders,
    CreateContainer,
    DestroyContainer,
    ObservedContainerState,
    PortDemand,
    Reason,
)
from tests.unit.agent.build import FAR_S, Driven, demand, info

SLOTS = 6
UIDS = (1_000_000, 1_000_019)


def key_of(effect: LaunchContainer | RemoveContainer) -> str:
    if isinstance(effect, LaunchContainer):
        return effect.hosted.key
    return container_key(effect.container, effect.incarnation)


class Host:
    """A launcher that carries out requests some time later, and outlives every agent."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.running: dict[tuple[str, int], frozenset[int]] = {}
        """By incarnation: its ports and its uid, which no other one may have."""
        self.asked: list[LaunchContainer | RemoveContainer] = []
        self.events: list[Struct] = []
        self.destroyed: set[tuple[str, int]] = set()

    def ask(self, effect: LaunchContainer | RemoveContainer) -> None:
        if effect not in self.asked:  # A repeated request has no effect.
            self.asked.append(effect)

    def work(self) -> None:
        while self.asked and self.dice.random() < 0.6:
            effect = self._next()
            if isinstance(effect, RemoveContainer):
                one = (effect.container, effect.incarnation)
                self.running.pop(one, None)
                self.destroyed.add(one)
                self.events.append(ContainerDestroyed(container=one[0], incarnation=one[1]))
            else:
                self._launch(effect)
        if self.running and self.dice.random() < 0.03:
            one = self.dice.choice(sorted(self.running))
            del self.running[one]
            reason = Reason(code="killed")
            self.events.append(ContainerEnded(container=one[0], incarnation=one[1], reason=reason))

    def _next(self) -> LaunchContainer | RemoveContainer:
        """Take the first request of any incarnation: they are launched and removed concurrently."""
        first: dict[str, LaunchContainer | RemoveContainer] = {}
        for effect in self.asked:
            first.setdefault(key_of(effect), effect)
        effect = self.dice.choice(list(first.values()))
        self.asked.remove(effect)
        return effect

    def _launch(self, effect: LaunchContainer) -> None:
        hosted = effect.hosted
        mine, ports = (hosted.container, hosted.incarnation), frozenset(hosted.ports.values())
        alone = ports | {hosted.uid}
        if mine in self.running:
            return  # A repeated request has no effect.
        assert mine not in self.destroyed, f"{mine} was launched again after its destruction"
        assert not [one for one in self.running if one[0] == mine[0]], (
            f"two incarnations of {mine[0]} at once"
        )
        assert not [one for one, theirs in self.running.items() if theirs & alone], f"{alone} twice"
        if self.dice.random() < 0.05:
            reason = Reason(code="mount")
            failed = ContainerLaunchFailed(container=mine[0], incarnation=mine[1], reason=reason)
            self.events.append(failed)
        elif self.dice.random() < 0.05:
            taken = PortsUnavailable(container=mine[0], incarnation=mine[1], ports=tuple(sorted(ports)))
            self.events.append(taken)
        else:
            self.running[mine] = alone
            self.events.append(ContainerLaunched(container=mine[0], incarnation=mine[1], pid=7))

    def seen(self) -> HostInspected:
        running = (
            RunningContainer(container=name, incarnation=number, pid=7)
            for name, number in sorted(self.running)
        )
        return HostInspected(running=tuple(running))


class Leader:
    """Desires containers, counts incarnations, and resends orders until they are reported."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.epoch = 1
        self.desired: dict[str, int] = {}
        self.latest: dict[str, int] = {}
        self.doomed: set[tuple[str, int]] = set()
        self.known: dict[tuple[str, int], ObservedContainerState] = {}

    def change(self) -> None:
        slot = f"job-1.{self.dice.randrange(SLOTS)}"
        if slot in self.desired:
            self.doomed.add((slot, self.desired.pop(slot)))
        else:
            self.latest[slot] = self.latest.get(slot, 0) + 1
            self.desired[slot] = self.latest[slot]

    def orders(self) -> ContainerOrders:
        ports = (PortDemand(name="a"), PortDemand(name="b"))
        create = [
            CreateContainer(container=slot, incarnation=number, demand=demand(*ports))
            for slot, number in sorted(self.desired.items())
            if self.known.get((slot, number)) is not ObservedContainerState.READY
        ]
        destroy = [
            DestroyContainer(container=slot, incarnation=number)
            for slot, number in sorted(self.doomed)
            if self.known.get((slot, number)) is not ObservedContainerState.GONE
        ]
        return ContainerOrders(
            agent="h1",
            epoch=self.epoch,
            until_s=FAR_S,
            create=tuple(create),
            destroy=tuple(destroy),
            report=self.dice.random() < 0.1,
        )

    def on_report(self, report: AgentReport) -> None:
        if report.full:
            self.known = {
                container_key: state
                for container_key, state in self.known.items()
                if state is ObservedContainerState.GONE
            }
        for one in report.containers:
            container_key = (one.container, one.incarnation)
            if self.known.get(container_key) is not ObservedContainerState.GONE:
                self.known[container_key] = one.state
            if (
                one.state is ObservedContainerState.ENDED
                and self.desired.get(one.container) == one.incarnation
            ):
                self.latest[one.container] += 1
                self.desired[one.container] = self.latest[one.container]
                self.doomed.add(container_key)
        for container_key in list(self.known):
            if (
                self.known[container_key] is ObservedContainerState.READY
                and self.desired.get(container_key[0]) != container_key[1]
            ):
                self.doomed.add(container_key)


class World:
    """One agent between a leader and a host; the wire loses, doubles and reorders."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.host = Host(self.dice)
        self.leader = Leader(self.dice)
        self.agent = Driven(AgentLogic(info(ports=(20000, 20019))), uids=UIDS)
        self.wire: list[ContainerOrders] = []
        self.serial = 0
        self.inbox: list[Struct] = [self.host.seen(), RedisClockRead(redis_s=0.0)]

    def turn(self, *, faults: bool) -> None:
        if faults and self.dice.random() < 0.3:
            self.leader.change()
        if faults and self.dice.random() < 0.05:
            self.leader.epoch += 1
        self._send(faults=faults)
        self.host.work()
        if faults and self.dice.random() < 0.05:
            self._crash()
        self.inbox += self.host.events
        self.host.events = []
        self._step(fail=faults and self.dice.random() < 0.1)
        self._report(lost=faults and self.dice.random() < 0.3)
        self.agent.now_s += 1.0

    def _send(self, *, faults: bool) -> None:
        self.wire.append(self.leader.orders())
        if faults and self.dice.random() < 0.3:
            self.wire.append(self.wire[-1])
        self.dice.shuffle(self.wire) if faults else None
        while self.wire and (not faults or self.dice.random() < 0.6):
            orders = self.wire.pop(0)
            if not (faults and self.dice.random() < 0.2):
                self.inbox.append(orders)

    def _crash(self) -> None:
        """Kill the agent: its inbox is lost, the launcher keeps its events."""
        kept = [event for event in self.inbox if not isinstance(event, ContainerOrders | ReportPublished)]
        if self.dice.random() < 0.5:
            self.host.asked = []  # Requests on their way to the launcher are lost with the agent.
        if self.dice.random() < 0.3:
            kept, self.host.events = [], []  # The launcher was killed as well, with its events.
        self.agent = self.agent.restart()
        self.inbox = [*(e for e in kept if not isinstance(e, HostInspected)), *self.host.events]
        self.host.events = []
        self.inbox += [self.host.seen(), RedisClockRead(redis_s=0.0)]

    def _step(self, *, fail: bool) -> None:
        effects = self.agent.logic.step(self.agent.now_s, self.inbox)
        if fail:
            for table in self.agent.logic.tables.values():
                table.discard()
            return
        self.agent.commit()
        self.inbox = []
        for effect in effects:
            if isinstance(effect, LaunchContainer | RemoveContainer):
                self.host.ask(effect)

    def _report(self, *, lost: bool) -> None:
        if self.inbox:
            return  # A step that was not committed sends no report.
        for role, send in self.agent.logic.flush(self.agent.now_s).sends:
            said = not lost or self.dice.random() < 0.5
            self.inbox.append(ReportPublished(role=role, ok=said))
            if said and not (lost and self.dice.random() < 0.5) and role == "resman":
                self.leader.on_report(send.body)


@pytest.mark.parametrize("seed", range(60))
def test_running_containers_become_the_desired_ones_whatever_the_wire_does(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        world.turn(faults=True)
    for _ in range(60):
        world.turn(faults=False)
        desired = set(world.leader.desired.items())
        ready = {
            container_key
            for container_key, state in world.leader.known.items()
            if state is ObservedContainerState.READY
        }
        if set(world.host.running) == desired and ready == desired and not world.host.asked:
            break
    else:
        raise AssertionError(
            f"never settled: running {sorted(world.host.running)}, desired {sorted(desired)}"
        )
    hosted = {entry.container for entry in world.agent.logic.hosted_containers()}
    assert hosted <= set(world.leader.latest)
