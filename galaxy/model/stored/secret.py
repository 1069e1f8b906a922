"""Secrets: values that programs get in their environment, and that Galaxy never shows."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from galaxy.model.base import Struct

SECRET_BYTES_MAX: Final = 64 * 1024
"""Longest value, in bytes of UTF-8."""
SECRETS_MAX: Final = 100
"""Named secrets that one user may keep."""

SecretName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


class Secret(Struct, frozen=True, kw_only=True):
    """A value that does not print; only code that passes it on reads ``text``."""

    text: Annotated[str, Meta(max_length=SECRET_BYTES_MAX)]

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class EnvFrom(Struct, frozen=True, kw_only=True):
    """Where the value of a variable comes from: a ``file``, relative to the job file, or a named ``secret``.

    AppMaster sets ``value`` in orders to AppWorkers; everywhere else it is None.
    """

    file: str = ""
    secret: str = ""
    value: Secret | None = None

    def __str__(self) -> str:
        return f"file {self.file}" if self.file else f"secret {self.secret}"


class SecretRecord(Struct, frozen=True, kw_only=True):
    """A named secret of ``user``; ``by`` set it last, and ``serial`` counts how often it was set."""

    name: str
    user: str
    value: Secret
    at_s: float
    by: str = ""
    serial: int = 1


class RevisionSecrets(Struct, frozen=True, kw_only=True):
    """The values of one revision of a job, by ``TASK/VARIABLE``; they never change."""

    job: str
    values: dict[str, Secret]
