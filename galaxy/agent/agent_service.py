"""The agent of one host: what ``galaxy agent`` runs inside its Celery worker."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import threading
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from galaxy.agent.config import MODES, AgentConfig
from galaxy.agent.connections.worker_connections import ExecSink
from galaxy.agent.disk_store import AgentStore
from galaxy.agent.heartbeat import HeartbeatSink, HeartbeatThread
from galaxy.agent.housekeeping import Housekeeping
from galaxy.agent.inbox import AgentInbox
from galaxy.agent.inventory import UsageSampler, describe, inventory, kernel_boot
from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.events import RedisClockRead
from galaxy.agent.logic.records import HostedPhase
from galaxy.agent.loop import AgentLoop
from galaxy.agent.packages.cache import PackageCache
from galaxy.agent.packages.stored import StoredPackages
from galaxy.agent.report_publisher import ReportPublisher
from galaxy.agent.sessions.session_threads import SessionSource, SessionThreads
from galaxy.container.host_support import HostAbilities, probe
from galaxy.container.kernel.uid_ranges import claim_uids, drop_unused_claims, try_lock
from galaxy.container.launcher.plan import FULL
from galaxy.container.runtime import Runtime
from galaxy.errors import GalaxyError, HostError, Unreachable, UsageError
from galaxy.ids import container_key
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.messages.agent import AgentInfo, AgentReport
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders
from galaxy.model.messages.worker import Exec, ToWorker

_LOG: Final = logging.getLogger(__name__)
START_S: Final = 30.0
"""How long the loop may take for its first turn."""
STOP_S: Final = 5.0


class AgentNexus(HeartbeatSink, SessionSource, Protocol):
    """The part of ``galaxy.nexus.nexus.Nexus`` that the agent uses."""

    @property
    def packages(self) -> StoredPackages: ...

    def post_report(self, role: str, report: AgentReport, *, replaces: bool) -> bool:
        """Post a report; return False because the one before is unread. May block or raise."""


class AgentService:
    """Runs the containers and pods of this host from ``start`` to ``stop``; programs outlive it.

    The methods for Celery's handlers only record an order and wake the loop. If the loop fails, which
    is a defect, ``failed`` ends the process, so that a new one adopts what runs.
    """

    def __init__(
        self,
        config: AgentConfig,
        nexus: AgentNexus,
        *,
        failed: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    ) -> None:
        self.config = config
        self.boot = uuid.uuid4().hex[:12]
        self._nexus = nexus
        self._failed = failed
        self._inbox = AgentInbox()
        self._publisher = ReportPublisher(nexus.post_report, self._inbox)
        self._info: AgentInfo | None = None
        self._lock_fd = -1
        self._claimed = False
        self._thread = threading.Thread(target=self._run, name="agent-loop", daemon=True)

    @property
    def info(self) -> AgentInfo:
        """The inventory; available once started."""
        assert self._info is not None
        return self._info

    def start(self) -> None:
        """Take the inventory, adopt the containers that run, and begin to report.

        Raises:
            HostError: this host or its state directory cannot be used; the message says why.
            UsageError: an option has an invalid value.
            Unreachable: the launcher does not answer.
        """
        config = self.config
        abilities = probe()
        mode, run_as = _mode_of(config, abilities), _run_as(config, abilities)
        self._lock_state()
        try:
            self._store = AgentStore(config.state / "agent.db")
            boot = kernel_boot()
            before = self._store.fact("kernel-boot", boot)
            self._info = inventory(
                config,
                boot=self.boot,
                mode=mode,
                enforced=abilities.enforced if mode == abilities.mode else (),
                kernel=abilities.kernel,
                cgroup=abilities.cgroup if mode == FULL else "",
            )
            logic = AgentLogic(self._info)
            self._store.load(logic.tables)
            logic.resume()
            if mode == FULL and not config.run_user:
                self._claimed = True
                logic.set_uid_range(*claim_uids(config.state, config.uids, 2 * config.containers_max))
            self._runtime = Runtime(config.state, cgroup_root=config.cgroup_root, mode=mode)
            self._runtime.start()
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._start_threads(logic, run_as, rebooted=before is not None and before != boot)

    def _start_threads(self, logic: AgentLogic, run_as: tuple[int, int], *, rebooted: bool) -> None:
        config = self.config
        self._packages = PackageCache(
            config.state / "packages",
            config.package_roots,
            stored=self._nexus.packages,
            bytes_max=config.packages_bytes_max,
            package_bytes_max=config.package_bytes_max,
            timeout_s=config.package_timeout_s,
        )
        self._loop = AgentLoop(
            config,
            logic,
            self._store,
            self._runtime,
            self._packages,
            publisher=self._publisher,
            inbox=self._inbox,
            run_as=run_as,
            rebooted=rebooted,
        )
        self._housekeeping = Housekeeping(
            config,
            self._runtime.meter,
            self._packages,
            self._inbox,
            lambda: self._loop.phases,
            boot=self.boot,
        )
        self._loop.on_remove = self._housekeeping.measure_last
        self._heartbeat = HeartbeatThread(
            self._nexus,
            UsageSampler(config.state),
            agent=config.name,
            boot=self.boot,
            heartbeat_s=config.heartbeat_s,
            usage_s=config.usage_s,
            digests=lambda: self._loop.digests,
            stuck_s=self._inbox.oldest_s,
            pods=lambda: self._housekeeping.usage,
            trouble=lambda: self._loop.trouble,
            meters=lambda: self._housekeeping.meters,
            clock=lambda redis_s: self._inbox.put(RedisClockRead(redis_s=redis_s)),
        )
        self._sessions = SessionThreads(
            self._nexus,
            _ExecThroughLoop(self._loop, self._inbox),
            config.state / "logs",
            alive=self._alive,
            sessions_max=config.sessions_max,
            idle_s=config.session_idle_s,
        )
        self._publisher.start()
        self._thread.start()
        if not self._loop.begun.wait(START_S):
            raise Unreachable(f"agent {config.name} did not begin within {START_S:g} s")
        self._heartbeat.start()
        self._housekeeping.start()
        _LOG.info("event=agent.started agent=%s boot=%s %s", config.name, self.boot, describe(self.info))

    def stop(self) -> None:
        """Stop the agent and announce it in the last heartbeat.

        Programs run on; an ephemeral agent destroys its containers first.
        """
        if self._thread.is_alive():
            self._heartbeat.leave()
        if self.config.ephemeral and self._thread.is_alive():
            left = self.destroy_all()
            if left:
                _LOG.error("event=agent.left containers=%r", left)
        self._heartbeat.stop(STOP_S)
        self._housekeeping.stop(STOP_S)
        self._sessions.close(STOP_S)
        self._packages.close()
        self._loop.stop()
        self._thread.join(STOP_S)
        self._publisher.stop(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()
            self._runtime.close()
            self._store.close()
            self._inbox.close()
        os.close(self._lock_fd)
        if self.config.ephemeral and self._claimed:
            try:
                drop_unused_claims()
            except (OSError, HostError) as error:  # The claim stays until another agent claims or drops it.
                _LOG.warning("event=agent.uids-left cause=%r", str(error))
        _LOG.info("event=agent.stopped agent=%s boot=%s", self.config.name, self.boot)

    # ---- called by Celery handlers

    def container_orders(self, orders: ContainerOrders) -> None:
        """Record ResMan's orders and wake the loop. Beyond a bound they are dropped and resent."""
        self._inbox.put_order(orders)

    def pod_orders(self, orders: PodOrders) -> None:
        """Record AppMaster's orders and wake the loop. Beyond a bound they are dropped and resent."""
        self._inbox.put_order(orders)

    def log_session(self, order: LogSession) -> None:
        """Stream logs of a pod into a session, in a thread."""
        self._sessions.start_log(order)

    def exec_session(self, order: ExecSession) -> None:
        """Run a command in a pod over a session, in a thread."""
        self._sessions.start_exec(order)

    # ---- destruction

    def destroy_all(self, timeout_s: float = 20.0) -> list[str]:
        """Destroy every container and end the launcher; return the keys of containers that are left."""
        self._loop.empty.clear()
        self._loop.release_all(self.config.destroy_grace_s)
        stopped = threading.Event()
        problem: list[str] = []

        def on_stopped(error: GalaxyError | None) -> None:
            problem.extend([] if error is None else [error.message])
            stopped.set()

        # The loop sets ``empty`` when the last container goes; a host without any is empty now.
        self._inbox.call(lambda: self._loop.empty.set() if not self._loop.phases else None)
        if self._loop.empty.wait(timeout_s):
            self._inbox.call(lambda: self._loop.stop_launcher(on_stopped))
            stopped.wait(timeout_s)
        return problem or sorted(self._loop.phases)

    # ---- helpers

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception:  # noqa: BLE001 - logged in full, and the process ends
            _LOG.exception("event=agent.failed agent=%s", self.config.name)
            self._failed()

    def _alive(self, container: str, incarnation: int) -> bool:
        """Return whether a container may still write output; an agent that starts adopts them first."""
        if not self._loop.has_stepped:
            return True
        phase = self._loop.phases.get(container_key(container, incarnation))
        return phase not in (None, HostedPhase.ENDED, HostedPhase.GONE)

    def _lock_state(self) -> None:
        """Lock the state directory: two agents over one database would both launch its containers."""
        state = self.config.state
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(f"cannot use state directory {state}: {error.strerror}") from error
        if not try_lock(self._lock_fd):
            os.close(self._lock_fd)
            hint = "give a second agent its own --state, --name and --cgroup-root"
            raise HostError(f"another agent uses the state directory {state}", hint=hint)


class _ExecThroughLoop:
    """AppWorkers as exec sessions reach them: every call is made in the loop's thread."""

    def __init__(self, loop: AgentLoop, inbox: AgentInbox) -> None:
        self._loop = loop
        self._inbox = inbox

    def begin(self, pod: str, packet: Exec, files: tuple[int, ...], sink: ExecSink) -> None:
        self._inbox.call(lambda: self._loop.begin_exec(pod, packet, files, sink))

    def send(self, pod: str, packet: ToWorker) -> None:
        self._inbox.call(lambda: self._loop.send_exec_packet(pod, packet))


def _mode_of(config: AgentConfig, abilities: HostAbilities) -> str:
    """Return the mode to run in: the configured one, or with ``auto`` the best that the host supports."""
    if config.mode not in MODES:
        raise UsageError(f"mode {config.mode!r} is not one of {', '.join(MODES)}")
    if config.mode == "auto":
        return abilities.mode
    ranks = MODES[1:]
    if ranks.index(config.mode) < ranks.index(abilities.mode):
        missing = [f"{finding.name}: {finding.detail}" for finding in abilities.findings if not finding.ok]
        raise HostError(
            f"cannot run in mode {config.mode}: this host supports {abilities.mode}",
            details=missing,
            hint="galaxy doctor",
        )
    return config.mode


def _run_as(config: AgentConfig, abilities: HostAbilities) -> tuple[int, int]:
    """Return uid and gid of all programs; -1 where each container has its own or users cannot be changed."""
    mode = _mode_of(config, abilities)
    if mode != FULL or not config.run_user:
        return -1, -1
    try:
        user = pwd.getpwnam(config.run_user)
    except KeyError:
        raise HostError(f"cannot run programs as {config.run_user!r}: there is no such user") from None
    if user.pw_uid == 0:
        raise UsageError(
            "programs are never run as root", hint="without --run-user each container has its own user"
        )
    return user.pw_uid, user.pw_gid
