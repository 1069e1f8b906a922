"""A leader's tables: frozen structs by key, with a journal, so that a tick is all or nothing.

Logic reads and writes tables freely during a step. The driver then commits ``changes()`` to
Nexus, fenced, and calls ``accept()``. If the commit was refused it calls ``discard()``, and the
tables are as before. Iteration is in order of insertion, so equal histories iterate alike.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from galaxy.model.base import Struct, decode, encode

T = TypeVar("T", bound=Struct)


class TableChange(Struct, frozen=True, kw_only=True):
    """A change of one row: its new ``value`` as JSON, or None if it was dropped."""

    table: str
    key: str
    value: bytes | None


class Table(Generic[T]):
    """Structs by key, with secondary indexes. Every write since the last commit can be undone.

    ``indexes`` map a name to a function from a row to the value that it is indexed by; None leaves
    the row out. ``multi_indexes`` do the same with any number of values, all different, for each row.
    ``sums`` map a name to a function from a row to a value and a number; the numbers of all
    rows with one value are combined by XOR.
    """

    def __init__(
        self,
        name: str,
        kind: type[T],
        indexes: Mapping[str, Callable[[T], Hashable | None]] | None = None,
        sums: Mapping[str, Callable[[T], tuple[Hashable, int] | None]] | None = None,
        multi_indexes: Mapping[str, Callable[[T], tuple[Hashable, ...]]] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self._rows: dict[str, T] = {}
        self._keys: dict[str, Callable[[T], Hashable | None]] = dict(indexes or {})
        self._multi_keys: dict[str, Callable[[T], tuple[Hashable, ...]]] = dict(multi_indexes or {})
        self._indexed: dict[str, dict[Hashable, dict[str, None]]] = self._empty_indexes()
        self._parts: dict[str, Callable[[T], tuple[Hashable, int] | None]] = dict(sums or {})
        self._sums: dict[str, dict[Hashable, int]] = {name: {} for name in self._parts}
        self._before: dict[str, T | None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, key: str) -> T:
        return self._rows[key]

    def get(self, key: str) -> T | None:
        return self._rows.get(key)

    def values(self) -> Iterable[T]:
        return self._rows.values()

    def items(self) -> Iterable[tuple[str, T]]:
        return self._rows.items()

    def where(self, index: str, value: Hashable) -> tuple[str, ...]:
        """Return the keys that ``index`` has for ``value``, oldest entry first."""
        return tuple(self._indexed[index].get(value, ()))

    def each(self, index: str, value: Hashable) -> Iterable[str]:
        """Return the keys that ``where`` returns, without a copy: do not write while iterating."""
        return self._indexed[index].get(value, {}).keys()

    def count(self, index: str, value: Hashable) -> int:
        """Return how many keys ``index`` has for ``value``, without listing them."""
        return len(self._indexed[index].get(value, ()))

    def index_values(self, index: str) -> tuple[Hashable, ...]:
        """Return the values for which ``index`` has any key."""
        return tuple(self._indexed[index])

    def sums(self, name: str) -> Mapping[Hashable, int]:
        """Return the sums ``name``, by value; a sum that is missing is 0."""
        return self._sums[name]

    def without(self, keys: Iterable[str]) -> list[str]:
        """Return those of ``keys`` that the table does not have."""
        rows = self._rows
        return [key for key in keys if key not in rows]

    def is_indexed(self) -> bool:
        """Return whether every index and sum fits the rows of the table. Reads the whole table; for tests."""
        fresh = Table(self.name, self.kind, self._keys, self._parts, self._multi_keys)
        fresh.fill(self._rows)
        for name, sums in self._sums.items():
            if {key: total for key, total in sums.items() if total} != {
                key: total for key, total in fresh._sums[name].items() if total
            }:
                return False
        for index, values in self._indexed.items():
            found = {(value, key) for value, keys in values.items() for key in keys}
            if found != {(value, key) for value, keys in fresh._indexed[index].items() for key in keys}:
                return False
        return True

    def put(self, key: str, row: T) -> bool:
        """Write ``row`` and return True; writing an equal row changes nothing and returns False."""
        old = self._rows.get(key)
        if old is row or (old is not None and old == row):
            return False
        self._before.setdefault(key, old)
        self._set(key, old, row)
        return True

    def drop(self, key: str) -> None:
        """Remove ``key`` if it is there."""
        old = self._rows.get(key)
        if old is None:
            return
        self._before.setdefault(key, old)
        self._set(key, old, None)

    def changes(self) -> list[TableChange]:
        """Return the changes since the last ``accept``, in the order in which keys were first written."""
        changes = []
        for key, old in self._before.items():
            new = self._rows.get(key)
            if new != old:
                changes.append(
                    TableChange(table=self.name, key=key, value=None if new is None else encode(new))
                )
        return changes

    def written(self) -> Iterable[tuple[str, T | None]]:
        """Return the keys that were written since the last ``accept``, each with its row before."""
        return self._before.items()

    def accept(self) -> None:
        """Mark the current state as committed; ``discard`` returns to it."""
        self._before.clear()

    def discard(self) -> None:
        """Undo every write since the last ``accept``."""
        for key, old in self._before.items():
            self._set(key, self._rows.get(key), old)
        self._before.clear()

    def load(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Replace all rows by stored ones, sorted by key.

        Raises:
            BadMessage: a row is not a ``kind``.
        """
        self.fill({key: decode(value, self.kind) for key, value in rows})

    def fill(self, rows: Mapping[str, T]) -> None:
        """Replace all rows by stored ones that are decoded already, sorted by key."""
        self._before.clear()
        self._rows = {key: rows[key] for key in sorted(rows)}
        self._indexed = self._empty_indexes()
        for index, key_of in self._keys.items():  # There may be 100,000: one pass for each index.
            indexed = self._indexed[index]
            for key, row in self._rows.items():
                value = key_of(row)
                if value is None:
                    continue
                keys = indexed.get(value)
                if keys is None:
                    indexed[value] = {key: None}
                else:
                    keys[key] = None
        for index, keys_of in self._multi_keys.items():
            indexed = self._indexed[index]
            for key, row in self._rows.items():
                for value in keys_of(row):
                    indexed.setdefault(value, {})[key] = None
        for name, part_of in self._parts.items():
            sums = self._sums[name] = {}
            for row in self._rows.values():
                part = part_of(row)
                if part is not None:
                    sums[part[0]] = sums.get(part[0], 0) ^ part[1]

    def _empty_indexes(self) -> dict[str, dict[Hashable, dict[str, None]]]:
        return {index: {} for index in (*self._keys, *self._multi_keys)}

    def _set(self, key: str, old: T | None, new: T | None) -> None:
        if new is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = new
        for index, key_of in self._keys.items():
            was = None if old is None else key_of(old)
            now = None if new is None else key_of(new)
            if was == now:
                continue
            indexed = self._indexed[index]
            if was is not None:
                keys = indexed[was]
                del keys[key]
                if not keys:
                    del indexed[was]
            if now is not None:
                indexed.setdefault(now, {})[key] = None
        for index, keys_of in self._multi_keys.items():
            before = () if old is None else keys_of(old)
            after = () if new is None else keys_of(new)
            if before == after:
                continue
            indexed = self._indexed[index]
            for value in before:
                if value not in after:
                    del indexed[value][key]
                    if not indexed[value]:
                        del indexed[value]
            for value in after:
                if value not in before:
                    indexed.setdefault(value, {})[key] = None
        for name, part_of in self._parts.items():
            for row in (old, new):
                part = None if row is None else part_of(row)
                if part is not None:
                    sums = self._sums[name]
                    sums[part[0]] = sums.get(part[0], 0) ^ part[1]
                    if not sums[part[0]]:
                        del sums[part[0]]
