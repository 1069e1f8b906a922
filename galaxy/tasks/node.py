"""Builds and runs the processes that are Celery workers: ResMan, AppMaster, agents."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from galaxy.container.kernel import inherited
from galaxy.driver.report_reader import ReportCounts
from galaxy.driver.shell import LeaderShell, ShellOptions
from galaxy.model.messages import names
from galaxy.model.step import Logic
from galaxy.nexus import Nexus
from galaxy.nexus.publisher import Publisher
from galaxy.nexus.sentinel import Sentinels
from galaxy.nexus.url import parse
from galaxy.tasks import log
from galaxy.tasks.app import make_app
from galaxy.tasks.gate import Gate
from galaxy.tasks.handlers import (
    APPMASTER_KINDS,
    RESMAN_KINDS,
    OrderHandler,
    RequestAnswerer,
    add_agent_handlers,
    add_leader_handlers,
    add_request_handlers,
)
from galaxy.tasks.worker import Service, run_worker

if TYPE_CHECKING:
    from galaxy.agent.config import AgentConfig
    from galaxy.appmaster.logic import AppMasterConfig
    from galaxy.resman.logic import ResManConfig

_LOG: Final = logging.getLogger(__name__)
USAGES_EVERY_S: Final = 10.0
"""Interval at which AppMaster reads the usage of pods."""
METERS_EVERY_S: Final = 60.0
"""Interval at which ResMan reads what containers have used."""


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How a process joins a cluster. ``host`` becomes part of its Celery node name: ``resman@HOST``.

    ``lease_s`` is how long a leader's lock lasts after its last renewal. ``polling_s`` is the timeout of
    Celery's blocking read, and so the time that an idle worker may take to stop.
    """

    url: str
    host: str
    log_level: str = "info"
    lease_s: float = 2.0
    polling_s: float = 1.0
    settings: Mapping[str, str] = field(default_factory=dict)
    """Options by name, which should be the same in every process of the role."""


def run_resman(options: NodeOptions, config: ResManConfig | None = None) -> int:
    """Run a ResMan until it receives a signal; return the exit code."""
    from galaxy.resman.logic import ResMan

    logic = ResMan() if config is None else ResMan(config)
    return run_leader(names.RESMAN, options, logic, add_resman_handlers, meters_every_s=METERS_EVERY_S)


def run_appmaster(options: NodeOptions, config: AppMasterConfig | None = None) -> int:
    """Run an AppMaster until it receives a signal; return the exit code."""
    from galaxy.appmaster.logic import AppMaster
    from galaxy.appmaster.stored_queries import StoredQueries

    def add_handlers(app: Any, shell: LeaderShell, gate: Gate, nexus: Nexus) -> None:
        add_appmaster_handlers(app, shell, gate, StoredQueries(nexus, config))

    logic = AppMaster() if config is None else AppMaster(config)
    return run_leader(names.APPMASTER, options, logic, add_handlers, usages_every_s=USAGES_EVERY_S)


def run_agent(options: NodeOptions, config: AgentConfig) -> int:
    """Run an agent until it receives a signal; return the exit code. Its containers keep running.

    Raises:
        Unreachable, Refused: Redis cannot be reached at the start, or the login is another host's.
    """
    from galaxy.agent.agent_service import AgentService

    inherited.reset()
    log.set_up(options.log_level)
    for name, (documented, most) in inherited.shortfalls().items():
        _LOG.warning("event=agent.limited limit=%s documented=%d most=%d", name, documented, most)
    node = f"agent@{options.host}"
    nexus = Nexus.connect(options.url, name=node)
    nexus.check_agent(options.host)
    return run_orders(options, AgentService(config, nexus), nexus.sentinels)


class OrderService(OrderHandler, Service, Protocol):
    """The service of an agent's process."""


def run_orders(options: NodeOptions, service: OrderService, sentinels: Sentinels | None = None) -> int:
    """Pass the orders of host ``options.host`` to ``service`` until a signal; return the exit code.

    ``sentinels`` are those of the service's own connection, if any.
    """
    node = f"agent@{options.host}"
    app = make_app(
        options.url,
        node=node,
        queues=(names.agent_queue(options.host), names.appworker_queue(options.host)),
        polling_s=options.polling_s,
        sentinels=sentinels,
    )
    add_agent_handlers(app, service)
    return run_worker(app, node=node, service=service, concurrency=2)


AddHandlers = Callable[[Any, LeaderShell, Gate, Nexus], None]
"""Registers the tasks of a role: app, shell, gate, nexus."""


def add_resman_handlers(app: Any, shell: LeaderShell, gate: Gate, _: Nexus) -> None:
    add_leader_handlers(app, shell, gate, RESMAN_KINDS)
    add_request_handlers(app, shell, gate)


def add_appmaster_handlers(app: Any, shell: LeaderShell, gate: Gate, answers: RequestAnswerer | None) -> None:
    add_leader_handlers(app, shell, gate, APPMASTER_KINDS)
    add_request_handlers(app, shell, gate, answers)


def run_leader(
    role: str,
    options: NodeOptions,
    logic: Logic,
    add_handlers: AddHandlers,
    *,
    usages_every_s: float = 0.0,
    meters_every_s: float = 0.0,
) -> int:
    """Run a leader of ``role`` (or a standby) until it receives a signal; return the exit code.

    Every ``usages_every_s`` (0: never) the logic gets the usage of pods, and every
    ``meters_every_s`` the meters of containers.

    Raises:
        Unreachable, Refused: Redis cannot be reached at the start; later the leader waits for it.
    """
    inherited.reset()
    log.set_up(options.log_level)
    node = f"{role}@{options.host}"
    nexus = Nexus.connect(options.url, name=node)
    publisher = Publisher(options.url, name=node, sentinels=nexus.sentinels)
    queues = names.leader_queues(role)
    gate = Gate(*queues)
    reports = ReportCounts()
    shell = LeaderShell(
        role=role,
        owner=f"{node}/{os.getpid()}-{secrets.token_hex(4)}",
        address=node,
        logic=logic,
        nexus=nexus,
        publish=publisher.publish,
        prepare=publisher.open,
        on_lead=gate.open,
        on_stand_by=gate.close,
        options=ShellOptions(
            ttl_s=options.lease_s,
            usages_every_s=usages_every_s,
            meters_every_s=meters_every_s,
            settings={**options.settings, "replicas": str(parse(options.url).replicas)},
        ),
        report_counts=reports,
        on_answered=lambda replies: app.galaxy_outcomes.answered(replies),
    )
    app = make_app(
        options.url,
        node=node,
        queues=queues,
        polling_s=options.polling_s,
        reply=nexus.reply,
        sentinels=nexus.sentinels,
        reports=reports,
    )
    reports.on_refused = lambda agent, why: app.galaxy_dropped.count("bad-report", agent=agent, why=why)
    app.galaxy_gate = gate
    add_handlers(app, shell, gate, nexus)
    return run_worker(app, node=node, service=shell, concurrency=4)
