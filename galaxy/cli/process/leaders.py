"""``galaxy resman`` and ``galaxy appmaster``: the processes of the leaders."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from galaxy.cli.lazy import Action
from galaxy.cli.options import Duration, Size, redis_options
from galaxy.client.contexts import REDIS_VARIABLES
from galaxy.client.login_urls import join_url
from galaxy.errors import UsageError
from galaxy.model.messages.names import APPMASTER, RESMAN

if TYPE_CHECKING:
    from galaxy.tasks.node import NodeOptions

_HINT: Final = "galaxy {} --redis-file FILE; `galaxy status` shows the leaders"
F = TypeVar("F", bound=Callable[..., Any])


def log_level_option(function: F) -> F:
    """Add ``--log-level``."""
    levels = click.Choice(("debug", "info", "warning", "error"), case_sensitive=False)
    return click.option(
        "--log-level",
        type=levels,
        default="info",
        show_default=True,
        envvar="GALAXY_LOG_LEVEL",
        help="Lowest level to log.",
    )(function)


def process_options(function: F) -> F:
    """Add the options that all of Galaxy's processes have."""
    for option in (
        log_level_option,
        click.option("--dir", "directory", metavar="DIR", help="Use the cluster of this folder."),
        redis_options,
    ):
        function = option(function)
    return function


def require_cluster(redis: str | None, directory: str | None, what: str, hint: str) -> None:
    """Make sure that the cluster is named on purpose: nothing joins whichever cluster was started last.

    Raises:
        UsageError: neither an option nor a variable names one.
    """
    if not (redis or directory or any(map(os.environ.get, (*REDIS_VARIABLES, "GALAXY_DIR")))):
        raise UsageError(f"no cluster is named that {what} is to join", hint=hint)


def _leader_options(function: F) -> F:
    function = click.option("--name", metavar="NAME", help="Name of this host in the cluster.")(function)
    function = click.option(
        "--lease", type=Duration(0.5, 60), default="2s", metavar="TIME", show_default=True,
        help="Time without renewal after which a leader is replaced.",
    )(function)  # fmt: skip
    return process_options(function)


@click.command(cls=Action)
@_leader_options
@click.option(
    "--require", multiple=True, envvar="GALAXY_REQUIRE", metavar="LIMIT",
    type=click.Choice(("cpu", "memory", "pids", "io", "disk", "namespaces", "seccomp", "user")),
    help="Use only agents that enforce this limit; may be repeated.",
)  # fmt: skip
@click.option(
    "--suspect-after", type=Duration(), default="10s", metavar="TIME", show_default=True,
    help="Time without a heartbeat after which an agent gets no new containers.",
)  # fmt: skip
@click.option(
    "--dead-after", type=Duration(), default="30s", metavar="TIME", show_default=True,
    help="Time without a heartbeat after which containers are placed elsewhere.",
)  # fmt: skip
@click.option(
    "--safe-mode-share", type=click.IntRange(1, 100), default=50, metavar="PERCENT", show_default=True,
    help="Share of the agents that must be away at once for safe mode.",
)  # fmt: skip
def resman(
    redis: str | None, directory: str | None, log_level: str, name: str | None, lease: float,
    require: tuple[str, ...], suspect_after: float, dead_after: float, safe_mode_share: int,
) -> int:  # fmt: skip
    """Run a ResMan, which leads or stands by while another one leads."""
    from galaxy.resman.logic import ResManConfig
    from galaxy.resman.logic.config import with_liveness_times
    from galaxy.tasks.node import run_resman

    settings = {
        "--require": ",".join(sorted(require)) or "none",
        "--suspect-after": f"{suspect_after:g}s",
        "--dead-after": f"{dead_after:g}s",
        "--safe-mode-share": f"{safe_mode_share}",
    }
    return run_resman(
        _node(RESMAN, redis, directory, log_level, name, lease, settings),
        with_liveness_times(
            ResManConfig(require_enforced=require, mass_loss_share=safe_mode_share / 100),
            suspect_s=suspect_after,
            dead_s=dead_after,
        ),
    )


@click.command(cls=Action)
@_leader_options
@click.option(
    "--require-users",
    is_flag=True,
    envvar="GALAXY_REQUIRE_USERS",
    help="Refuse unsigned requests even while there are no users.",
)
@click.option(
    "--first-operator",
    default="",
    envvar="GALAXY_FIRST_OPERATOR",
    metavar="USER:KEY",
    help="The first operator, as `galaxy user key` prints it.",
)
@click.option(
    "--package-max", type=Size(), default="256M", metavar="SIZE", show_default=True,
    envvar="GALAXY_PACKAGE_MAX", help="Largest package that the cluster stores.",
)  # fmt: skip
@click.option(
    "--packages-max", type=Size(), default="1G", metavar="SIZE", show_default=True,
    envvar="GALAXY_PACKAGES_MAX", help="Most that all stored packages take of Redis' memory.",
)  # fmt: skip
def appmaster(
    redis: str | None, directory: str | None, log_level: str, name: str | None, lease: float,
    require_users: bool, first_operator: str, package_max: int, packages_max: int,
) -> int:  # fmt: skip
    """Run an AppMaster, which leads or stands by while another one leads."""
    from galaxy.appmaster.logic import AppMasterConfig
    from galaxy.tasks.node import run_appmaster

    settings = {
        "--require-users": "yes" if require_users else "no",
        "--package-max": str(package_max),
        "--packages-max": str(packages_max),
    }
    return run_appmaster(
        _node(APPMASTER, redis, directory, log_level, name, lease, settings),
        AppMasterConfig(
            require_users=require_users,
            first_operator=first_operator,
            package_bytes_max=package_max,
            packages_bytes_max=packages_max,
        ),
    )


def _node(
    role: str,
    redis: str | None,
    directory: str | None,
    log_level: str,
    name: str | None,
    lease_s: float,
    settings: dict[str, str],
) -> NodeOptions:
    """Return the options of a leader's process. ``settings`` are those that all leaders of a role share."""
    from galaxy.tasks.node import NodeOptions

    title = {RESMAN: "this ResMan", APPMASTER: "this AppMaster"}[role]
    require_cluster(redis, directory, title, _HINT.format(role))
    return NodeOptions(
        url=join_url(role, url=redis or "", dir=directory or ""),
        host=name or socket.gethostname(),
        log_level=log_level,
        lease_s=lease_s,
        settings=settings,
    )
