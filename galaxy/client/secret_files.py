"""Files whose content becomes the value of an environment variable: read here, and never shown."""

from __future__ import annotations

from pathlib import Path

from galaxy.client.paths import resolve_path
from galaxy.errors import SpecError
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import SECRET_BYTES_MAX, EnvFrom, Secret
from galaxy.units import counted, format_bytes


def read_files(spec: JobSpec, *, base: Path) -> dict[str, Secret]:
    """Return the content of every file that an environment in ``spec`` names, relative to ``base``.

    Raises:
        SpecError: files do not exist, are too long, or are not text; all of them are named.
    """
    files, problems = _read(spec, base)
    if problems:
        count = counted(len(problems), "problem")
        details = [str(problem) for problem in problems]
        raise SpecError(f'cannot read the secrets of job "{spec.name}": {count}', details=details)
    return files


def secret_file_problems(spec: JobSpec, *, base: Path) -> list[Diagnostic]:
    """Return a diagnostic for each file, relative to ``base``, that cannot become a variable's value."""
    return _read(spec, base)[1]


def _read(spec: JobSpec, base: Path) -> tuple[dict[str, Secret], list[Diagnostic]]:
    files: dict[str, Secret] = {}
    problems: list[Diagnostic] = []
    for index, task in enumerate(spec.pod.tasks):
        for name, source in task.env.items():
            if isinstance(source, EnvFrom) and source.file and source.file not in files:
                try:
                    files[source.file] = read_file(resolve_path(base, source.file))
                except SpecError as error:
                    problems.append(Diagnostic(("pod", "tasks", index, "env", name, "file"), error.message))
    return files, problems


def read_file(path: Path) -> Secret:
    """Return the content of a file without one newline at its end.

    Raises:
        SpecError: it cannot be read, is too long, is empty, or is not text.
    """
    try:
        with path.open("rb") as file:
            return secret_of(file.read(SECRET_BYTES_MAX + 3), f'"{path}"')
    except (OSError, ValueError) as error:
        raise SpecError(f'cannot read "{path}": {getattr(error, "strerror", None) or error}') from error


def secret_of(data: bytes, name: str) -> Secret:
    """Return ``data`` as a secret without one newline at its end; errors call it ``name``.

    Raises:
        SpecError: it is too long, empty, or not text that an environment variable can hold.
    """
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(data) > SECRET_BYTES_MAX:
        raise SpecError(f"{name} is longer than {format_bytes(SECRET_BYTES_MAX)}")
    if not data or b"\0" in data:
        raise SpecError(f"{name} {'has a zero byte' if data else 'is empty'}")
    try:
        return Secret(text=data.decode())
    except UnicodeDecodeError:  # Not chained: its message quotes the secret.
        raise SpecError(f"{name} is not text in UTF-8; base64 makes text of anything") from None
