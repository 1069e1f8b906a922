"""Rules about one task: its variables, limits, health check and restart policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from galaxy.model.jobspec.diagnostics import Diagnostic, Path
from galaxy.model.jobspec.spec import ULIMITS, UNLIMITED, HealthSpec, JobType, RestartSpec, TaskSpec
from galaxy.model.stored.secret import EnvFrom
from galaxy.suggest import nearest

NOFILE_MIN: Final = 16
ARGUMENT_BYTES_MAX: Final = 128 * 1024
"""MAX_ARG_STRLEN of execve(2): the longest argument or variable of a program, in bytes with the zero at
its end. Secrets and commands have lower limits."""
STACK_BYTES: Final = 8 * 1024 * 1024
"""Limit on a program's stack when its task sets none."""
OWN_BYTES: Final = 4 * 1024
"""Room for the variables that Galaxy adds."""
FILE_CHARACTERS_MAX: Final = 1024

BAD_NAME: Final = "is not the name of a secret: letters, digits, `_`, `.`, `-`, a letter first, 64 at most"
CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""A control character; tabs and ends of lines are none."""
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def diagnostics(task: TaskSpec, path: Path, type_: JobType) -> Iterator[Diagnostic]:
    """Yield a diagnostic for every violated rule about one task of a job of ``type_``."""
    for name, value in task.env.items():
        yield from _env(name, value, (*path, "env", name))
    for field in ("start", "stop"):
        if CONTROL.search(getattr(task, field)):
            yield Diagnostic((*path, field), "has control characters")
    if task.data and CONTROL.search(task.data.reload):
        yield Diagnostic((*path, "data", "reload"), "has control characters")
    if task.health is not None:
        yield from _health(task, task.health, (*path, "health"))
    yield from _ulimits(task, (*path, "ulimits"))
    if task.restart is not None:
        yield from _restart(task.restart, (*path, "restart"), type_)


def _ulimits(task: TaskSpec, path: Path) -> Iterator[Diagnostic]:
    for name, limit in task.ulimits.items():
        soft, hard = limit.soft, limit.hard
        if name not in ULIMITS:
            near = nearest(name, ULIMITS)
            meant = f"did you mean {near}?" if near else f"these are: {', '.join(ULIMITS)}"
            yield Diagnostic((*path, name), f"is not a limit that a task can set; {meant}")
        elif hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
            text = "unlimited" if soft == UNLIMITED else soft
            yield Diagnostic((*path, name), f"has a soft limit ({text}) above its hard limit ({hard})")
        elif name == "nofile" and hard == UNLIMITED:
            yield Diagnostic((*path, name), "cannot be unlimited: the kernel has a highest number")
        elif name == "nofile" and soft < NOFILE_MIN:
            yield Diagnostic((*path, name), f"is {soft}; a program needs at least {NOFILE_MIN}")


def _env(name: str, value: str | EnvFrom, path: Path) -> Iterator[Diagnostic]:
    if not _ENV.fullmatch(name):
        yield Diagnostic(path, "is not the name of a variable: letters, digits and `_`, no digit first")
    elif name.startswith("GALAXY_"):
        yield Diagnostic(path, "names that begin with GALAXY_ are Galaxy's own")
    if isinstance(value, EnvFrom):
        yield from _env_from(value, path)
        return
    if CONTROL.search(value):
        yield Diagnostic(path, "has control characters")
    size = len(f"{name}={value}".encode("utf-8", "surrogatepass")) + 1
    if size > ARGUMENT_BYTES_MAX:
        yield Diagnostic(
            path,
            f"takes {size:,} bytes with its name; the kernel passes {ARGUMENT_BYTES_MAX:,} to a program, so "
            "put it into a file of the package",
        )


def known_port(task: TaskSpec, name: str, path: Path, base: Path) -> Iterator[Diagnostic]:
    """Yield a diagnostic at ``path`` if the task at ``base`` has no port of this name."""
    known = [port.name for port in task.ports]
    if name not in known:
        ports = f"its ports are {', '.join(known)}" if known else "it has no ports"
        text = f'task "{task.name}" has no port "{name}"; {ports}'
        yield Diagnostic(path, text, about=((*base, "ports"),))


def oversize_arguments(task: TaskSpec, path: Path) -> Iterator[Diagnostic]:
    """Yield a diagnostic if the program's arguments and variables together exceed execve(2)'s limit.

    The limit is a quarter of the soft limit on the stack, at least 128 KiB and at most 6 MiB.
    """
    stack = task.ulimits["stack"].soft if "stack" in task.ulimits else STACK_BYTES
    room = max(ARGUMENT_BYTES_MAX, min(stack // 4, 3 * STACK_BYTES // 4))
    if stack < 0:
        room = 3 * STACK_BYTES // 4
    size = (
        len(task.start.encode("utf-8", "surrogatepass"))
        + OWN_BYTES
        + sum(
            len(f"{name}={_value_of(value)}".encode("utf-8", "surrogatepass")) + 9  # A zero and a pointer.
            for name, value in task.env.items()
        )
    )
    if size > room:
        yield Diagnostic(
            (*path, "env"),
            f"takes {size:,} bytes with the command; with this limit on the stack the kernel passes "
            f"{room:,} to a program",
            about=((*path, "ulimits"),),
        )


def is_secret_name(text: str) -> bool:
    """Return whether ``text`` is a valid name of a secret."""
    return _SECRET.fullmatch(text) is not None


def _env_from(source: EnvFrom, path: Path) -> Iterator[Diagnostic]:
    if bool(source.file) == bool(source.secret):
        text = "needs one of `file` and `secret`" + (", not both" if source.file else "")
        yield Diagnostic(path, text, about=((*path, "file"), (*path, "secret")))
    if source.secret and not is_secret_name(source.secret):
        yield Diagnostic((*path, "secret"), BAD_NAME)
    if len(source.file) > FILE_CHARACTERS_MAX or CONTROL.search(source.file):
        text = f"has control characters, or more than {FILE_CHARACTERS_MAX}"
        yield Diagnostic((*path, "file"), text)
    if source.value is not None:
        yield Diagnostic(
            (*path, "value"), "cannot be given in a job file: all readers of the file would see it"
        )


def _health(task: TaskSpec, health: HealthSpec, path: Path) -> Iterator[Diagnostic]:
    if health.type == "command":
        if not health.command:
            yield Diagnostic((*path, "command"), "is missing; type `command` runs it and expects exit code 0")
        if health.port:
            yield Diagnostic((*path, "port"), "has no meaning for type `command`")
    elif health.type in ("tcp", "http"):
        if health.port:
            yield from known_port(task, health.port, (*path, "port"), path[:-1])
        else:
            yield Diagnostic(
                (*path, "port"), f"is missing; type `{health.type}` connects to one of the task's ports"
            )
        if health.command:
            yield Diagnostic((*path, "command"), f"has no meaning for type `{health.type}`")
    if health.type == "http" and not health.path.startswith("/"):
        yield Diagnostic((*path, "path"), f'"{health.path}" does not begin with "/"')
    if CONTROL.search(health.path) or " " in health.path:
        yield Diagnostic((*path, "path"), "has spaces or control characters")
    if CONTROL.search(health.command):
        yield Diagnostic((*path, "command"), "has control characters")


def _restart(restart: RestartSpec, path: Path, type_: JobType) -> Iterator[Diagnostic]:
    if restart.policy == "always" and type_ is JobType.BATCH:
        yield Diagnostic(
            (*path, "policy"), "a batch pod that exits 0 is finished; use `on-failure` or `never` here"
        )
    if restart.policy == "never" and restart.attempts > 0:
        yield Diagnostic((*path, "attempts"), f"{restart.attempts} attempts contradict policy `never`")
    if restart.delay_max < restart.delay:
        yield Diagnostic(
            (*path, "delay_max"), f"{restart.delay_max:g}s is less than delay, {restart.delay:g}s"
        )


def _value_of(value: str | EnvFrom) -> str:
    if isinstance(value, str):
        return value
    return value.value.text if value.value is not None else ""
