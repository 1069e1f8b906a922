"""An agent under lost, doubled, late and reordered messages, crashes and failing disks, by seed.

The resource manager and the launcher here are small models with rules of their own; the logic
is the real one. Never: two lives of a container at once, a destroyed life again, one port
twice. Eventually: what lives is what is wanted, and the leader knows it.
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


def life_of(effect: LaunchContainer | RemoveContainer) -> str:
    if isinstance(effect, LaunchContainer):
        return effect.hosted.key
    return container_key(effect.container, effect.incarnation)


class Host:
    """A launcher that does what it is asked, some time later, and outlives every agent."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.living: dict[tuple[str, int], frozenset[int]] = {}
        """By life, its ports and its uid: numbers that are nobody else's."""
        self.asked: list[LaunchContainer | RemoveContainer] = []
        self.events: list[Struct] = []
        self.destroyed: set[tuple[str, int]] = set()

    def ask(self, effect: LaunchContainer | RemoveContainer) -> None:
        if effect not in self.asked:  # Asked twice is once.
            self.asked.append(effect)

    def work(self) -> None:
        while self.asked and self.dice.random() < 0.6:
            effect = self._next()
            if isinstance(effect, RemoveContainer):
                one = (effect.container, effect.incarnation)
                self.living.pop(one, None)
                self.destroyed.add(one)
                self.events.append(ContainerDestroyed(container=one[0], incarnation=one[1]))
            else:
                self._launch(effect)
        if self.living and self.dice.random() < 0.03:
            one = self.dice.choice(sorted(self.living))
            del self.living[one]
            reason = Reason(code="killed")
            self.events.append(ContainerEnded(container=one[0], incarnation=one[1], reason=reason))

    def _next(self) -> LaunchContainer | RemoveContainer:
        """Take any life's first request: lives are made and unmade beside each other."""
        first: dict[str, LaunchContainer | RemoveContainer] = {}
        for effect in self.asked:
            first.setdefault(life_of(effect), effect)
        effect = self.dice.choice(list(first.values()))
        self.asked.remove(effect)
        return effect

    def _launch(self, effect: LaunchContainer) -> None:
        hosted = effect.hosted
        mine, ports = (hosted.container, hosted.incarnation), frozenset(hosted.ports.values())
        alone = ports | {hosted.uid}
        if mine in self.living:
            return  # Asked twice is once.
        assert mine not in self.destroyed, f"{mine} came back from the dead"
        assert not [one for one in self.living if one[0] == mine[0]], f"two lives of {mine[0]}"
        assert not [one for one, theirs in self.living.items() if theirs & alone], f"{alone} twice"
        if self.dice.random() < 0.05:
            reason = Reason(code="mount")
            failed = ContainerLaunchFailed(container=mine[0], incarnation=mine[1], reason=reason)
            self.events.append(failed)
        elif self.dice.random() < 0.05:
            taken = PortsUnavailable(container=mine[0], incarnation=mine[1], ports=tuple(sorted(ports)))
            self.events.append(taken)
        else:
            self.living[mine] = alone
            self.events.append(ContainerLaunched(container=mine[0], incarnation=mine[1], pid=7))

    def seen(self) -> HostInspected:
        lives = (
            RunningContainer(container=name, incarnation=number, pid=7)
            for name, number in sorted(self.living)
        )
        return HostInspected(running=tuple(lives))


class Leader:
    """Wants slots, counts incarnations, sends again what is not yet reported."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.epoch = 1
        self.wanted: dict[str, int] = {}
        self.latest: dict[str, int] = {}
        self.doomed: set[tuple[str, int]] = set()
        self.known: dict[tuple[str, int], ObservedContainerState] = {}

    def change(self) -> None:
        slot = f"job-1.{self.dice.randrange(SLOTS)}"
        if slot in self.wanted:
            self.doomed.add((slot, self.wanted.pop(slot)))
        else:
            self.latest[slot] = self.latest.get(slot, 0) + 1
            self.wanted[slot] = self.latest[slot]

    def orders(self) -> ContainerOrders:
        ports = (PortDemand(name="a"), PortDemand(name="b"))
        create = [
            CreateContainer(container=slot, incarnation=number, demand=demand(*ports))
            for slot, number in sorted(self.wanted.items())
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

    def hear(self, report: AgentReport) -> None:
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
                and self.wanted.get(one.container) == one.incarnation
            ):
                self.latest[one.container] += 1
                self.wanted[one.container] = self.latest[one.container]
                self.doomed.add(container_key)
        for container_key in list(self.known):
            if (
                self.known[container_key] is ObservedContainerState.READY
                and self.wanted.get(container_key[0]) != container_key[1]
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
        """The agent is killed: what was in its inbox is lost, the launcher keeps its own word."""
        kept = [event for event in self.inbox if not isinstance(event, ContainerOrders | ReportPublished)]
        if self.dice.random() < 0.5:
            self.host.asked = []  # What was on its way to the launcher is lost with us.
        if self.dice.random() < 0.3:
            kept, self.host.events = [], []  # The launcher was killed as well, and its word with it.
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
            return  # A step that was not committed says nothing.
        for role, send in self.agent.logic.flush(self.agent.now_s).sends:
            said = not lost or self.dice.random() < 0.5
            self.inbox.append(ReportPublished(role=role, ok=said))
            if said and not (lost and self.dice.random() < 0.5) and role == "resman":
                self.leader.hear(send.body)


@pytest.mark.parametrize("seed", range(60))
def test_what_lives_becomes_what_is_wanted_whatever_the_wire_does(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        world.turn(faults=True)
    for _ in range(60):
        world.turn(faults=False)
        wanted = set(world.leader.wanted.items())
        ready = {
            container_key
            for container_key, state in world.leader.known.items()
            if state is ObservedContainerState.READY
        }
        if set(world.host.living) == wanted and ready == wanted and not world.host.asked:
            break
    else:
        raise AssertionError(f"never settled: lives {sorted(world.host.living)}, wanted {sorted(wanted)}")
    hosted = {entry.container for entry in world.agent.logic.hosted_containers()}
    assert hosted <= set(world.leader.latest)
