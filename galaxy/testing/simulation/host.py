"""A simulated host: its containers and its agent's process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from galaxy.accounting.meters import ContainerMeters
from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import (
    RemoveContainer,
)
from galaxy.agent.logic.events import HostInspected, PortsScanned, RedisClockRead, ReportPublished
from galaxy.agent.logic.reports import DueReport
from galaxy.ids import container_key
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import WIRE_VERSION, Struct
from galaxy.model.messages.agent import AgentInfo, MeterSample
from galaxy.model.messages.names import agent_queue, appworker_queue
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.agent_disk import NO_OBSERVER, AgentDisk, HostObserver
from galaxy.testing.simulation.agent_effects import AgentEffects
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.machine import Machine, Notify, ProgramObserver
from galaxy.testing.simulation.world import START_S, World
from galaxy.units import GIB

HEARTBEAT_S: Final = 2.0
USAGE_S: Final = 10.0
UIDS: Final = (1_000_000, 1_000_255)
DISK_RETRY_S: Final = 0.5
_NO_PORTS: Final = PortsScanned(listening=frozenset(), used=frozenset())


class Host:
    """One machine with one agent. Only the agent's disk survives a crash of the agent or a reboot."""

    def __init__(
        self,
        world: World,
        bus: Bus,
        nexus: MemoryNexus,
        *,
        name: str,
        on_program: ProgramObserver,
        sizes: Mapping[str, int] | None = None,
        info: AgentInfo | None = None,
        build: Callable[[AgentInfo], AgentLogic] = AgentLogic,
        own_heartbeats: bool = True,
        observer: HostObserver = NO_OBSERVER,
    ) -> None:
        """``info``: the agent's facts, instead of ordinary ones with ``sizes``; ``boot`` is replaced.

        ``own_heartbeats=False``: the caller sends heartbeats; Redis' clock is read once per start.
        """
        self.name = name
        self.cut_until_s = 0.0
        self.trouble = ""
        """Reason that heartbeats give why the agent cannot obey; empty if it can."""
        self.disk_fails: Callable[[], bool] = lambda: False
        """Whether a commit of the agent fails; it keeps the events and tries again after ``DISK_RETRY_S``."""
        self.uids = UIDS
        """First and last uid of containers; an assignment takes effect when the agent starts again."""
        self.wire = WIRE_VERSION
        """Wire version that heartbeats state."""
        self.logic: AgentLogic | None = None
        self._world = world
        self._bus = bus
        self._nexus = nexus
        self._build = build
        self._own_heartbeats = own_heartbeats
        self._observer = observer
        self._disk = AgentDisk(name, observer)
        self._slow_until_s = 0.0
        self._last_event_s = 0.0
        self._process = 0
        self._disk_retry_s = 0.0
        self._events: list[Struct] = []
        self._stepping = False
        self._wake_s: float | None = None
        has = {"cpu_milli": 4000, "memory_bytes": 4 * GIB, "disk_bytes": 4 * GIB, **(sizes or {})}
        self._info = info or AgentInfo(
            agent=name, address=f"10.0.0.{name[1:]}", boot="", version="0", cpu_milli=has["cpu_milli"],
            memory_bytes=has["memory_bytes"], disk_bytes=has["disk_bytes"], ports_low=20_000,
            ports_high=20_100, enforced=("cpu", "memory", "pids", "disk"),
        )  # fmt: skip
        self.machine = Machine(
            world, host=name, on_program=on_program, notify=self._notify_agent, on_created=self._on_created
        )
        self._effects = AgentEffects(world, self.machine, self._lag_s)
        self._start(rebooted=False)

    @property
    def living(self) -> dict[str, SimulatedAppWorker]:
        """AppWorkers by container key."""
        return self.machine.living

    @property
    def cut(self) -> bool:
        return self._world.now_s < self.cut_until_s

    @property
    def info(self) -> AgentInfo:
        """The agent's facts; an assignment takes effect when the agent starts again."""
        return self._info

    @info.setter
    def info(self, info: AgentInfo) -> None:
        self._info = info

    # ---- faults

    def crash(self) -> None:
        """Kill the agent's process and start it again later. Containers keep running."""
        self._world.record(f"agent {self.name} crashes")
        self._stop()
        self._world.after(self._world.between(0.3, 5.0), lambda: self._start(rebooted=False))

    def stop_agent(self, seconds: float) -> None:
        """Stop the agent on purpose and start it again after ``seconds``. Containers keep running."""
        self.send_heartbeat(leaving=True)
        self._stop()
        self._world.after(seconds, lambda: self._start(rebooted=False))

    def restart(self) -> None:
        """Kill the agent's process and start it again at once. Containers keep running."""
        self._stop()
        self._start(rebooted=False)

    def lose_requests(self) -> None:
        """Lose what the agent has asked the launcher for and what it has not begun."""
        self._effects.lose_requests()

    def wipe(self) -> None:
        """Replace the machine by an empty one of the same name: no containers, no agent's disk."""
        self._stop()
        self.machine.power_off()
        self._disk.clear()
        self._start(rebooted=True)

    def reboot(self) -> None:
        """Reboot the machine: every container is gone, the agent's disk is kept."""
        self._world.record(f"host {self.name} reboots")
        self.power_off(self._world.between(2.0, 20.0))

    def power_off(self, seconds: float) -> None:
        """Switch the machine off for ``seconds``, then boot it."""
        self._stop()
        self.machine.power_off()
        self._world.after(seconds, lambda: self._start(rebooted=True))

    def cut_off(self, seconds: float) -> None:
        """Drop all messages from and to this machine for ``seconds``."""
        self._world.record(f"host {self.name} is cut off for {seconds:.0f} s")
        self.cut_until_s = self._world.now_s + seconds
        self._bus.cancel(agent_queue(self.name), self.on_event)
        self._bus.cancel(appworker_queue(self.name), self.on_event)
        self._world.after(seconds + 0.001, lambda: self._listen(self._process))

    def reconnect(self) -> None:
        """End ``cut_off`` now."""
        self.cut_until_s = 0.0
        self._listen(self._process)

    def inject_faults(self) -> None:
        """Apply this machine's faults; called once per simulated second."""
        faults = self._world.faults
        if self._world.strikes("agent_crash", able=self.logic is not None):
            self.crash()
        elif self._world.strikes("host_reboot", able=self.logic is not None):
            self.reboot()
        elif self._world.strikes("host_cut", able=not self.cut):
            self.cut_off(self._world.between(1.0, faults.cut_s))
        elif self._world.strikes("host_slow"):
            self._slow_until_s = self._world.now_s + self._world.between(1.0, faults.slow_s)
            self._world.record(f"host {self.name} is slow")
        self.machine.inject_faults()

    # ---- the agent's process

    def _start(self, *, rebooted: bool) -> None:
        if self.logic is not None:
            return
        self._process += 1
        boot = f"{self.name}-{self._process}"
        self._info = msgspec.structs.replace(self._info, boot=boot)
        self._meters, self._measured_s = ContainerMeters(), self._world.now_s
        self.logic = self._build(self._info)
        self.logic.set_uid_range(*self.uids)
        self._disk.load(self.logic)
        self.logic.resume()
        self._world.record(f"agent {boot} starts with {len(self.living)} containers living")
        self.on_event(HostInspected(running=self.machine.running_containers(), rebooted=rebooted))
        self._listen(self._process)
        self._send_heartbeat(self._process)

    def send_heartbeat(self, *, leaving: bool = False) -> float:
        """Send a heartbeat; return Redis' clock, 0.0 when the host is cut off or has no agent."""
        if self.logic is None or self.cut:
            return 0.0
        containers, pods = self._disk.digests
        return self._nexus.send_heartbeat(
            self.name,
            meters=self._measure() if self._own_heartbeats else None,
            boot=self._info.boot,
            containers=containers,
            pods=pods,
            trouble=self.trouble,
            leaving=leaving,
            wire=self.wire,
        )

    def _measure(self) -> MeterSample | None:
        """Return the meters of all containers every ``USAGE_S``, as ``galaxy.agent.housekeeping`` does."""
        now_s = self._world.now_s
        if now_s < self._measured_s + USAGE_S:
            return None
        self._measured_s = now_s
        for key, worker in self.living.items():
            self._meters.sample(
                key,
                cpu_ns=worker.cpu_ns,
                memory_bytes=worker.memory_bytes,
                began_s=max(worker.began_s, now_s - USAGE_S / 2),
                now_s=now_s,
            )
        self._meters.keep_only(set(self.living), now_s)
        return MeterSample(boot=self._info.boot, at_s=now_s, meters=self._meters.readings(now_s))

    def _close_meter(self, container: str, incarnation: int) -> None:
        key = container_key(container, incarnation)
        worker = self.living.get(key)
        cpu_ns = self.machine.ended_cpu_ns.pop(key, None) if worker is None else worker.cpu_ns
        if cpu_ns is not None:
            self._meters.end(key, cpu_ns=cpu_ns, now_s=self._world.now_s)

    def _stop(self) -> None:
        self._process += 1
        self.logic = None
        self._events = []
        self._wake_s = None
        self._disk_retry_s = 0.0
        self._bus.cancel(agent_queue(self.name), self.on_event)
        self._bus.cancel(appworker_queue(self.name), self.on_event)
        self.machine.disconnect_all()

    def _listen(self, process: int) -> None:
        if process == self._process and self.logic is not None and not self.cut:
            self._bus.consume(agent_queue(self.name), self.on_event)
            self._bus.consume(appworker_queue(self.name), self.on_event)

    def _send_heartbeat(self, process: int) -> None:
        if process != self._process or self.logic is None:
            return
        redis_s = self.send_heartbeat()
        if redis_s:
            self.on_event(RedisClockRead(redis_s=redis_s))
        if self._own_heartbeats or not redis_s:
            self._world.after(HEARTBEAT_S, lambda: self._send_heartbeat(process))

    def _later(self, delay_s: float, event: Struct) -> None:
        """Deliver ``event`` to this agent process after ``delay_s``, unless it stops before."""
        process = self._process

        def due() -> None:
            if process == self._process:
                self.on_event(event)

        lag_s = self._lag_s()
        if lag_s or self._last_event_s > self._world.now_s:  # A slow host keeps the order of its events.
            self._last_event_s = max(self._last_event_s, self._world.now_s + delay_s + lag_s)
            delay_s = self._last_event_s - self._world.now_s
        self._world.after(delay_s, due)

    def _lag_s(self) -> float:
        """Return the extra seconds that an action takes while the host is slow."""
        if self._world.now_s >= self._slow_until_s:
            return 0.0
        return self._world.between(0.0, self._world.faults.lag_s)

    def on_event(self, event: Struct) -> None:
        """Step the agent with ``event``. Sessions are dropped: no logic handles them."""
        if self.logic is None or isinstance(event, (LogSession, ExecSession)):
            return
        self._events.append(event)
        if not self._stepping and self._world.now_s >= self._disk_retry_s:
            self._step_until_idle()

    def _step_until_idle(self) -> None:
        self._stepping = True
        try:
            while self._events and self.logic is not None and self._world.now_s >= self._disk_retry_s:
                self._step()
        finally:
            self._stepping = False

    def _step(self) -> None:
        logic = self.logic
        assert logic is not None
        batch, self._events = self._events, []
        if logic.needs_port_scan(batch):
            batch.insert(0, _NO_PORTS)
        effects = logic.step(self._mono_s(), batch)
        if self.disk_fails():
            self._retry_commit(logic, batch)
            return
        changed = self._disk.commit(logic)
        self._observer.stepped(self.name, batch, effects, changed)
        if self._world.strikes("agent_crash_in_step"):
            self.crash()
            return
        for effect in effects:
            if isinstance(effect, RemoveContainer):
                self._close_meter(effect.container, effect.incarnation)
            self._effects.perform(effect, self._notifier())
        flush = logic.flush(self._mono_s())
        for due in flush.reports:
            self._post(due)
        self._schedule_wake(logic.wake_s())

    def _retry_commit(self, logic: AgentLogic, batch: list[Struct]) -> None:
        """Undo a step that could not be stored, and step with its events again later."""
        for table in logic.tables.values():
            table.discard()
        self._events = [*batch, *self._events]
        self._disk_retry_s = self._world.now_s + DISK_RETRY_S
        process = self._process

        def retry() -> None:
            if process == self._process:
                self._step_until_idle()
                self._schedule_wake(logic.wake_s())

        self._world.after(DISK_RETRY_S, retry)

    def _post(self, due: DueReport) -> None:
        process = self._process

        def answer(posted: bool | None) -> None:
            if process == self._process:
                published = ReportPublished(role=due.role, ok=posted is not None, unread=posted is False)
                self._later(0.0, published)

        if self.cut:
            self._world.after(0.002, lambda: answer(None))
        else:
            self._bus.post(due, answer)

    def _schedule_wake(self, wake_s: float | None) -> None:
        self._wake_s = wake_s
        if wake_s is None:
            return
        process = self._process

        def ring() -> None:
            if (
                process == self._process
                and self._wake_s == wake_s
                and self.logic is not None
                and not self._stepping
                and self._world.now_s >= self._disk_retry_s
            ):
                self._wake_s = None
                self._stepping = True
                try:
                    self._step()
                finally:
                    self._stepping = False
                if self._events:
                    self._later(0.0, self._events.pop(0))

        self._world.after(max(wake_s - self._mono_s(), 0.001), ring)

    def _mono_s(self) -> float:
        return self._world.now_s - START_S

    def _notifier(self) -> Notify:
        """Return a function that delivers events to this agent process and to no later one."""
        process = self._process

        def notify(delay_s: float, event: Struct) -> None:
            if process == self._process:
                self._later(delay_s, event)

        return notify

    def _notify_agent(self, delay_s: float, event: Struct) -> None:
        if self.logic is not None:
            self._later(delay_s, event)

    def _on_created(self, container: str, incarnation: int) -> None:
        self._observer.container_created(self.name, container, incarnation)
