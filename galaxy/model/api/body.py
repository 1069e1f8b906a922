"""An operation on the wire: its name, body, result, and the leader that answers it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar, get_args

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.messages.names import APPMASTER

R = TypeVar("R", bound=Struct)

PAGE_MAX: Final = 10_000
PAGE_DEFAULT: Final = 5_000
"""Rows of one page. An encoded page must not exceed ``MESSAGE_BYTES_MAX``."""


class Body(Struct, Generic[R], frozen=True, kw_only=True):
    """The arguments of one operation, whose answer is an ``R``.

    A subclass with an ``op`` declares an operation. The client, the leader and the Celery task
    take name, body, result and queue from this class alone:

        class SetSecret(Body[SecretView], frozen=True, kw_only=True):
            op: ClassVar[str] = "galaxy.secret.set"
            name: SecretName
    """

    op: ClassVar[str] = ""
    """Name of the operation and of its Celery task: ``galaxy.SUBJECT.VERB``."""
    answered_by: ClassVar[str] = APPMASTER
    """Role of the leader that answers; also the name of the queue for requests."""
    result: ClassVar[type[Any]]
    """The class ``R``; ``__init_subclass__`` sets it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            result = get_args(base)[0]
            if isinstance(result, type):
                cls.result = result


class Page(Struct, frozen=True, kw_only=True):
    """Some rows of a list; ``next`` is the cursor of the page after it, empty on the last page."""

    next: str = ""


P = TypeVar("P", bound=Page)


class PagedBody(Body[P], Generic[P], frozen=True, kw_only=True):
    """The arguments of a list: at most ``limit`` rows, after cursor ``after``."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Annotated[str, Meta(max_length=2000)] = ""
