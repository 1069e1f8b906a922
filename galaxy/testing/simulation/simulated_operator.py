"""An operator who drains hosts and puts them back into service, and repeats each request until answered."""

from __future__ import annotations

import random
from typing import Any, Final

from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.drains import DrainAgents, OnlineAgents
from galaxy.model.api.request import Request
from galaxy.model.base import decode
from galaxy.model.messages.names import RESMAN
from galaxy.model.step import Send
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.world import World

RETRY_S: Final = 2.0
ACTS: Final = 0.12
"""Probability of a request in each second."""
DEADLINES_S: Final = (0.0, 0.0, 5.0, 20.0)
"""Deadlines of drains; 0 means none."""


class SimulatedOperator:
    """Drains one or two hosts at a time, by choices of its own: those of a seed stay as they are."""

    def __init__(self, world: World, bus: Bus, nexus: MemoryNexus, hosts: list[str]) -> None:
        self.draining: tuple[str, ...] = ()
        """The hosts that are drained, as far as ResMan has answered."""
        self.busy = False
        self._random = random.Random(f"operator {world.seed}")  # noqa: S311 - reproducible
        self._world = world
        self._bus = bus
        self._nexus = nexus
        self._hosts = hosts
        self._requests = 0

    def act(self) -> None:
        """Now and then begin a drain, or end it; called once per simulated second."""
        if self.busy or self._random.random() > ACTS:
            return
        if self.draining:
            self.end()
        else:
            hosts = self._random.sample(self._hosts, self._random.choice((1, 2)))
            self.drain(*hosts, deadline_s=self._random.choice(DEADLINES_S))

    def drain(self, *hosts: str, deadline_s: float = 0.0) -> None:
        """Drain hosts."""

        def done(answer: Answer) -> None:
            if answer.problem is None:
                self._world.fault_counts["drain"] += 1
                self.draining = hosts

        self._ask(DrainAgents(agents=hosts, deadline_s=deadline_s), done)

    def end(self) -> None:
        """Put the drained hosts back into service, if there are any and no request is pending."""
        if self.busy or not self.draining:
            return

        def done(answer: Answer) -> None:
            if answer.problem is None:
                self._world.fault_counts["undrain"] += 1
                self.draining = ()

        self._ask(OnlineAgents(agents=self.draining), done)

    def _ask(self, body: Body[Any], done: Any) -> None:
        self.busy = True
        self._requests += 1
        key = f"operator{self._requests}"

        def attempt() -> None:
            request = Request(
                op=body.op, key=key, reply=f"{key}-reply", deadline_s=self._world.now_s + RETRY_S, user="op",
                body=body,
            )  # fmt: skip
            self._bus.send(Send(queue=RESMAN, task=body.op, body=request, id=key))
            self._world.after(RETRY_S, check)

        def check() -> None:
            data = self._nexus.await_reply(f"{key}-reply", 0.0)
            if data is None:
                attempt()
                return
            answer = decode(data, Answer)
            self._world.record(f"operator asked {body.op}: {answer.problem or 'ok'}")
            self.busy = False
            done(answer)

        attempt()
