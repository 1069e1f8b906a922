"""Work that can wait: usage samples of containers, and removal of old logs and packages."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from galaxy.accounting.meters import ContainerMeters
from galaxy.agent.config import AgentConfig
from galaxy.agent.inbox import AgentInbox
from galaxy.agent.logic.events import UsageMeasured
from galaxy.agent.logic.records import HostedPhase
from galaxy.agent.packages.cache import PackageCache
from galaxy.container.launcher.init_process import WORKER_LOG
from galaxy.container.usage import ContainerUsage, UsageMeter
from galaxy.ids import container_key, parse_container_key
from galaxy.model.messages.agent import MeterSample
from galaxy.model.messages.log_files import STREAMS

_LOG: Final = logging.getLogger(__name__)
_LOG_ENDINGS: Final = tuple(f".{stream}" for stream in STREAMS)


class Housekeeping:
    """A thread that wakes every ``usage_s`` seconds. ``phases`` returns the phase by container key."""

    def __init__(
        self,
        config: AgentConfig,
        meter: UsageMeter,
        packages: PackageCache,
        inbox: AgentInbox,
        phases: Callable[[], dict[str, HostedPhase]],
        *,
        boot: str = "",
    ) -> None:
        self._config = config
        self._meter = meter
        self._packages = packages
        self._inbox = inbox
        self._phases = phases
        self._last_cpu: dict[str, tuple[int, float]] = {}
        """By container key: CPU time in nanoseconds and when it was read, monotonic seconds."""
        self.usage: dict[str, tuple[int, int]] = {}
        """Millicores and bytes by pod. Replaced, never changed, so that other threads may read it."""
        self.meters: MeterSample | None = None
        """What every container has used so far, as last measured. Replaced, never changed."""
        self._boot = boot
        self._meters, self._meters_lock = ContainerMeters(), threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._ending.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        next_removal_s = time.monotonic() + self._config.garbage_s
        while not self._ending.wait(self._config.usage_s):
            try:
                self._measure()
                if time.monotonic() >= next_removal_s:
                    next_removal_s = time.monotonic() + self._config.garbage_s
                    self._remove_old()
            except Exception:  # noqa: BLE001 - one failure must not end the thread
                _LOG.exception("event=housekeeping.failed")

    def _measure(self) -> None:
        """Sample every ready container; CPU is the mean since the last sample."""
        before, self._last_cpu = self._last_cpu, {}
        measured: dict[str, tuple[int, int]] = {}
        keys: set[str] = set()
        for key, phase in self._phases().items():
            parsed = parse_container_key(key)
            if phase is not HostedPhase.READY or parsed is None or self._ending.is_set():
                continue
            container, incarnation = parsed
            usage, now_s = self._meter.measure(container, incarnation), time.monotonic()
            self._last_cpu[key] = (usage.cpu_ns, now_s)
            keys.add(key)
            self._count(key, usage, now_s)
            then_ns, then_s = before.get(key, (usage.cpu_ns, now_s - 1.0))
            cpu_milli = max(0, round((usage.cpu_ns - then_ns) / (now_s - then_s) / 1e6))
            measured[container] = (cpu_milli, usage.memory_bytes)
            self._inbox.put(
                UsageMeasured(
                    container=container,
                    incarnation=incarnation,
                    cpu_milli=cpu_milli,
                    memory_bytes=usage.memory_bytes,
                )
            )
        self.usage = measured
        self._publish_meters(keys)

    def measure_last(self, container: str, incarnation: int) -> None:
        """Close the meter of a container that is about to be removed; called from the agent's loop."""
        cpu_ns = self._meter.cpu_ns(container, incarnation)
        if cpu_ns is not None:
            with self._meters_lock:
                self._meters.end(container_key(container, incarnation), cpu_ns=cpu_ns, now_s=time.monotonic())

    def _count(self, key: str, usage: ContainerUsage, now_s: float) -> None:
        """Add a sample to a container's meter. A new container became ready since the last round."""
        began_s = now_s - self._config.usage_s / 2
        with self._meters_lock:
            self._meters.sample(
                key, cpu_ns=usage.cpu_ns, memory_bytes=usage.memory_bytes, began_s=began_s, now_s=now_s
            )

    def _publish_meters(self, keys: set[str]) -> None:
        with self._meters_lock:
            self._meters.keep_only(keys, time.monotonic())
            readings = self._meters.readings(time.monotonic())
        self.meters = MeterSample(boot=self._boot, at_s=time.time(), meters=readings)

    def _remove_old(self) -> None:
        config = self._config
        removed = remove_old_logs(
            config.state / "logs",
            self._phases(),
            now_s=time.time(),
            keep_s=config.logs_keep_s,
            bytes_max=config.logs_bytes_max,
        )
        if removed:
            _LOG.info("event=logs.removed count=%d first=%s", len(removed), removed[0])
        self._packages.trim()


def remove_old_logs(
    logs: Path, keep: Collection[str], *, now_s: float, keep_s: float, bytes_max: int
) -> list[str]:
    """Remove log directories of containers that are gone, and return their names.

    Only directories are removed whose name is the key of a container, and that hold logs or are empty.

    Those last written more than ``keep_s`` seconds ago are removed, and then the oldest until the
    rest is within ``bytes_max``. ``keep`` holds the keys of the containers on this host, whose logs stay.
    """
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(logs) as entries:
        names += (entry.name for entry in entries if _is_of_container(entry))
    found = [(*_age_and_size(str(logs / name)), name) for name in names if name not in keep]
    total = sum(size for _, size, _ in found)
    removed = []
    for changed_s, size, name in sorted(found):
        if now_s - changed_s > keep_s or total > bytes_max:
            shutil.rmtree(logs / name, ignore_errors=True)
            total -= size
            removed.append(name)
    return removed


def _is_of_container(entry: os.DirEntry[str]) -> bool:
    if parse_container_key(entry.name) is None or not entry.is_dir(follow_symlinks=False):
        return False
    try:
        inside = os.listdir(entry.path)
    except OSError:
        return False
    return not inside or any(name == WORKER_LOG or name.endswith(_LOG_ENDINGS) for name in inside)


def _age_and_size(directory: str) -> tuple[float, int]:
    """Return when a file of a directory was last written (Unix seconds), and the bytes on disk."""
    changed_s, size = 0.0, 0
    with contextlib.suppress(OSError):
        changed_s = os.stat(directory).st_mtime
        for entry in os.scandir(directory):
            facts = entry.stat(follow_symlinks=False)
            changed_s, size = max(changed_s, facts.st_mtime), size + facts.st_blocks * 512
    return changed_s, size
