"""What an operation looks like on the wire: its name, its body, its result, and who answers it."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, get_args

from galaxy.model.base import Struct
from galaxy.model.messages.names import APPMASTER

R = TypeVar("R", bound=Struct)


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
    """``R``, at run time."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            result = get_args(base)[0]
            if isinstance(result, type):
                cls.result = result
