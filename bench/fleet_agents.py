"""Simulated agents on a real Redis: ``python bench/fleet_agents.py --redis URL --hosts N``.

Production agent logic, production AppWorker logic and production messages, without containers. All hosts
share one process: one read takes the orders of all of them, one pipeline sends the reports of all, one the
heartbeats. So the hosts cost little, and what is measured is the leaders and Redis.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
import redis

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.reports import DueReport
from galaxy.model.base import WIRE_VERSION, Struct, encode
from galaxy.model.messages.agent import AgentInfo, AgentReport, Heartbeat
from galaxy.model.messages.container import ContainerOrders, ObservedContainerState
from galaxy.model.messages.names import CONTAINER_APPLY, POD_DEPLOY, agent_queue, appworker_queue
from galaxy.model.messages.pod import PodOrders, PodState
from galaxy.nexus import keys
from galaxy.nexus.envelope import decode_call, read
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.nexus.mailboxes import POST, post_call
from galaxy.testing.simulation.bus import Answered, Bus, Consumer
from galaxy.testing.simulation.faults import NO_FAULTS
from galaxy.testing.simulation.host import HEARTBEAT_S, Host
from galaxy.testing.simulation.world import START_S, World
from galaxy.units import GIB

POLL_S = 0.01
"""Pause between two reads of the hosts' queues."""
HEARTBEAT_BATCHES = 20
SMALL, MARKS = "small", "bench:hosts"
"""Of pods of jobs with this prefix, the hosts note in a Redis hash when they handle what: by ``POD WHAT``,
Unix seconds."""
KINDS: dict[str, type[Struct]] = {CONTAINER_APPLY: ContainerOrders, POD_DEPLOY: PodOrders}
TAKEN_MAX = 300
"""Messages that one read takes. What they cause is done before more are taken, as on hosts that work alone:
otherwise the first container of a burst would be reported after the last one was ordered."""
TAKE = """
local found, left = {}, tonumber(ARGV[1])
for at = 3, #ARGV do
  local queues = redis.call('KEYS', ARGV[at])
  for number = 1, #queues do
    if left <= 0 then return found end
    local queue = queues[(number + ARGV[2]) % #queues + 1]
    local items = redis.call('RPOP', queue, left)
    found[#found + 1] = {queue, items}
    left = left - #items
  end
end
return found
"""


class Headers(msgspec.Struct):
    task: str


class Item(msgspec.Struct):
    body: msgspec.Raw
    headers: Headers


class RealTimeWorld(World):
    """A world whose time is that of the machine."""

    def __init__(self) -> None:
        super().__init__(1, NO_FAULTS, float("inf"))
        self._began_s = time.monotonic()

    def record(self, line: str) -> None:
        """Keep no log: it would cost more than the hosts."""

    def run_due(self) -> None:
        """Call everything that is due by now."""
        self.run(time.monotonic() - self._began_s, _nothing)

    def next_s(self) -> float:
        """Return the seconds until something is due."""
        if not self._due:
            return POLL_S
        return self._due[0][0] - START_S - (time.monotonic() - self._began_s)


class RealNexus(MemoryNexus):
    """Collects heartbeats and writes them in one pipeline."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(lambda: 0.0)
        self._client = client
        self._beats: list[Heartbeat] = []
        self._ahead_s = self._redis_s() - time.monotonic()

    def send_heartbeat(
        self,
        agent: str,
        *,
        boot: str,
        containers: int = 0,
        pods: int = 0,
        **_: Any,
    ) -> float:
        self._beats.append(
            Heartbeat(agent=agent, at_s=0.0, boot=boot, containers=containers, pods=pods, wire=WIRE_VERSION)
        )
        return self._ahead_s + time.monotonic()

    def flush(self) -> None:
        """Write the collected heartbeats with Redis' time."""
        beats, self._beats = self._beats, []
        if beats:
            now_s = self._redis_s()
            pipe = self._client.pipeline(transaction=False)
            pipe.zadd(keys.HEARTBEATS, {beat.agent: now_s for beat in beats})
            pipe.hset(keys.HEARTBEAT_FACTS, mapping={beat.agent: encode(beat) for beat in beats})
            pipe.execute()

    def _redis_s(self) -> float:
        seconds, micros = self._client.time()
        return int(seconds) + int(micros) / 1e6


class RealBus(Bus):
    """The hosts' queues in Redis, and their reports by the production script."""

    def __init__(self, world: World, client: redis.Redis, prefix: str) -> None:
        """Take the orders of all hosts whose names begin with ``prefix``."""
        super().__init__(world, MemoryNexus(lambda: 0.0))
        self._patterns = appworker_queue(f"{prefix}[0-9]*"), agent_queue(f"{prefix}[0-9]*")
        self.receivers: dict[str, Consumer] = {}
        self._client = client
        self._take = client.register_script(TAKE)
        self._first = itertools.count(step=997)
        """Where a read begins in the list of queues, so that no host is always last."""
        self._post_script = client.register_script(POST)
        self._due: list[tuple[DueReport, Answered]] = []
        self._marks: dict[str, float] = {}

    def consume(self, queue: str, consumer: Consumer) -> None:
        self.receivers[queue] = consumer

    def cancel(self, queue: str, consumer: Consumer) -> None:  # noqa: ARG002 - the interface of Bus
        self.receivers.pop(queue, None)

    def post(self, due: DueReport, answer: Answered) -> None:
        self._due.append((due, answer))

    def take(self) -> bool:
        """Deliver orders that wait in Redis; return whether more may wait."""
        found: Any = self._take(args=[TAKEN_MAX, next(self._first), *self._patterns])
        for queue, items in found:
            receive = self.receivers.get(queue.decode())
            for data in items if receive is not None else ():
                item = msgspec.json.decode(data, type=Item)
                kind = KINDS.get(item.headers.task)
                if kind is not None:
                    _, arguments, _ = decode_call(bytes(item.body))
                    body = read(arguments["v"], arguments["body"], kind)
                    self._mark(ordered(body))
                    receive(body)
        return sum(len(items) for _, items in found) >= TAKEN_MAX

    def flush(self) -> None:
        """Post what the hosts report, and tell them which reports are unread."""
        posts, self._due = self._due, []
        if not posts:
            return
        pipe = self._client.pipeline(transaction=False)
        for due, _ in posts:
            keys_of, arguments = post_call(due.role, due.report, replaces=due.replaces)
            self._post_script(keys=keys_of, args=arguments, client=pipe)
            self._mark(reported(due.report))
        for name, at_s in self._marks.items():
            pipe.hsetnx(MARKS, name, str(at_s))
        self._marks = {}
        for (_, answer), posted in zip(posts, pipe.execute(), strict=False):
            answer(bool(posted))

    def _mark(self, names: Iterable[str]) -> None:
        for name in names:
            if name.startswith(SMALL):
                self._marks.setdefault(name, time.time())


def ordered(body: Struct) -> list[str]:
    """Return the names under which orders are noted."""
    match body:
        case ContainerOrders():
            return [f"{one.container} create" for one in body.create]
        case PodOrders():
            return [f"{one.pod} deploy" for one in body.orders]
    return []


def reported(report: AgentReport) -> list[str]:
    """Return the names under which containers that are ready, and pods that run, are noted."""
    ready = (one.container for one in report.containers if one.state is ObservedContainerState.READY)
    running = (one.pod for one in report.pods if one.state is PodState.RUNNING)
    return [*(f"{name} ready" for name in ready), *(f"{name} run" for name in running)]


class DisklessHost(Host):
    """A host that stores nothing: it never restarts, and its disk is not what is measured."""

    def send_heartbeat(self) -> float:
        if self.logic is not None:
            self._digests = self.logic.digests()
        return super().send_heartbeat()

    def _commit(self, logic: AgentLogic) -> list[str]:
        changed = [key for table in logic.tables.values() for key, _ in table.written()]
        for table in logic.tables.values():
            table.accept()
        return changed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--redis", required=True)
    options.add_argument("--hosts", type=int, required=True)
    options.add_argument("--prefix", default="h", help="what the names of the hosts begin with")
    options.add_argument("--pool", default="main")
    given = options.parse_args()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    gc.disable()  # Millions of objects live on; collecting them costs time and frees nothing.
    run(given.redis, given.hosts, lambda: bool(ended), prefix=given.prefix, pool=given.pool)


def run(url: str, count: int, is_over: Callable[[], bool], *, prefix: str, pool: str) -> None:
    """Run ``count`` hosts of ``pool``, named ``h1`` on with the prefix ``h``, until ``is_over``."""
    client = redis.Redis.from_url(url)
    world = RealTimeWorld()
    nexus, bus = RealNexus(client), RealBus(world, client, prefix)
    hosts = [
        DisklessHost(
            world, bus, nexus, name=f"{prefix}{n}", on_program=_no_program,
            info=facts(f"{prefix}{n}", pool), own_heartbeats=False,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip

    def send_heartbeats(group: Sequence[Host]) -> None:
        world.after(HEARTBEAT_S, partial(send_heartbeats, group))
        for host in group:
            host.send_heartbeat()

    for first in range(HEARTBEAT_BATCHES):
        delay_s = first * HEARTBEAT_S / HEARTBEAT_BATCHES
        world.after(delay_s, partial(send_heartbeats, hosts[first::HEARTBEAT_BATCHES]))
    take_s = 0.0
    while not is_over():
        world.run_due()
        if time.monotonic() >= take_s:
            take_s = 0.0 if bus.take() else time.monotonic() + POLL_S
        bus.flush()
        nexus.flush()
        pause_s = min(world.next_s(), take_s - time.monotonic())
        if pause_s > 0:
            with contextlib.suppress(InterruptedError):
                time.sleep(pause_s)  # Not a wait for a state: the pause of a poll.


def facts(name: str, pool: str) -> AgentInfo:
    """Return a host with room for a thousand small containers."""
    return AgentInfo(
        agent=name, pool=pool, address="10.0.0.1", boot="", version="0", cpu_milli=128_000,
        memory_bytes=512 * GIB, disk_bytes=4096 * GIB, ports_low=20_000, ports_high=29_999,
        enforced=("cpu", "memory", "pids", "disk"),
    )  # fmt: skip


def _nothing() -> None:
    pass


def _no_program(*_: object) -> None:
    pass


if __name__ == "__main__":
    main()
