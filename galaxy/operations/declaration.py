"""How an operation is declared: one decorator on the function that runs it.

    @change(SetSecret, authority=SELF_OR_OPERATOR, target=_target)
    def set_secret(state: AppMasterState, body: SetSecret, caller: Caller) -> SecretView:
        ...

Name, body and result come from the ``Body``; who may call it, and what the audit trail calls its
target, from the decorator. Neither decorator works without an authority rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from galaxy.model.api.body import Body
from galaxy.model.base import Struct
from galaxy.model.stored.user import UserRecord

S = TypeVar("S")
"""State of the leader that the operation reads or changes."""
B = TypeVar("B", bound=Body[Any])


class Caller(Struct, frozen=True, kw_only=True):
    """The sender of a request, its idempotency key, and its nonce.

    ``user`` is None in a cluster without users: then ``name`` comes from the sender unproven.
    """

    name: str
    user: UserRecord | None
    key: str
    nonce: str = ""

    def secret_id(self, *facts: str) -> str:
        """Return an id for ``facts`` that nobody can guess who has not seen the request.

        It contains the nonce, which is random: an idempotency key may be chosen by a person, and Flower shows
        it. A repeated request has another nonce, and gets the ids in its first answer.
        """
        return hashlib.blake2b(
            "\x1f".join((self.key, self.nonce, *facts)).encode(), digest_size=16
        ).hexdigest()


@dataclass(frozen=True, kw_only=True)
class AuthorityRule(Generic[S, B]):
    """Which users may call an operation. Operators may call every operation.

    ``documented`` is the rule as docs/security.md states it. ``require`` raises ``Refused`` for a
    caller who may not, ``NotFound`` when the target does not exist, and ``Conflict`` when it is
    ambiguous. It is not called for operators, nor in a cluster without users.
    """

    documented: str
    require: Callable[[S, B, Caller], None]


@dataclass(frozen=True, kw_only=True)
class Query(Generic[S, B]):
    """An operation that changes nothing; it runs again for every request."""

    body: type[B]
    authority: AuthorityRule[S, B]
    run: Callable[[S, B, Caller], Any]


@dataclass(frozen=True, kw_only=True)
class Change(Generic[S, B]):
    """An operation that is run once for each idempotency key, and audited under its ``target``."""

    body: type[B]
    authority: AuthorityRule[S, B]
    target: Callable[[B, Caller], str]
    run: Callable[[S, B, Caller], Any]


Operation = Query[S, Any] | Change[S, Any]


def query(
    body: type[B], *, authority: AuthorityRule[S, B]
) -> Callable[[Callable[[S, B, Caller], Any]], Query[S, B]]:
    """Declare a function as the query ``body``."""
    _require_name(body)

    def declare(run: Callable[[S, B, Caller], Any]) -> Query[S, B]:
        return Query(body=body, authority=authority, run=run)

    return declare


def change(
    body: type[B], *, authority: AuthorityRule[S, B], target: Callable[[B, Caller], str]
) -> Callable[[Callable[[S, B, Caller], Any]], Change[S, B]]:
    """Declare a function as the change ``body``; ``target`` returns the audit trail's name of its target."""
    _require_name(body)

    def declare(run: Callable[[S, B, Caller], Any]) -> Change[S, B]:
        return Change(body=body, authority=authority, target=target, run=run)

    return declare


def by_name(operations: Iterable[Operation[Any]]) -> Mapping[str, Operation[Any]]:
    """Return ``operations`` by their names.

    Raises:
        ValueError: two have one name.
    """
    named: dict[str, Operation[Any]] = {}
    for operation in operations:
        if named.setdefault(operation.body.op, operation) is not operation:
            raise ValueError(f"{operation.body.op} is declared twice")
    return named


def declared_in(*modules: Any) -> Mapping[str, Operation[Any]]:
    """Return the operations that ``modules`` declare, by their names."""
    return by_name(value for module in modules for value in vars(module).values() if _is_operation(value))


def _is_operation(value: Any) -> bool:
    return isinstance(value, (Query, Change))


def _require_name(body: type[Body[Any]]) -> None:
    if not body.op:
        raise ValueError(f"{body.__name__} has no `op`, so it is no operation")
