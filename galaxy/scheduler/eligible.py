"""The agents that a class of containers may be placed on, and arrays restricted to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


class Eligible(NamedTuple):
    """Rows of a cluster view, in order of agent name.

    ``complete`` means that they are all rows in ascending order, so that columns are sliced, not gathered.
    """

    rows: Ints
    complete: bool

    def take(self, column: NDArray[T]) -> NDArray[T]:
        """Return ``column`` at these rows."""
        return column[: len(self.rows)] if self.complete else column[self.rows]

    def among(self, rows: Collection[int], size: int) -> Bools:
        """Return which of these rows are in ``rows``; the view has ``size`` of them."""
        mask = np.zeros(size, np.bool_)
        mask[np.fromiter(rows, np.int64, len(rows))] = True
        return self.take(mask)

    def counts(self, counts: Mapping[int, int], size: int) -> Ints:
        """Return the count of each of these rows, 0 where ``counts`` has none."""
        column = np.zeros(size, np.int64)
        index = np.fromiter(counts, np.int64, len(counts))
        column[index] = np.fromiter(counts.values(), np.int64, len(counts))
        return self.take(column)

    def only(self, rows: Collection[int], size: int) -> Eligible:
        """Return those of these rows that are in ``rows``."""
        return Eligible(self.rows[self.among(rows, size)], False)


def all_rows(size: int) -> Eligible:
    """Return all rows of a view of ``size``, in order of row."""
    return Eligible(np.arange(size), True)


def grown(column: NDArray[T], size: int) -> NDArray[T]:
    """Return a copy of ``column`` that is ``size`` long, zeros at the end."""
    longer = np.zeros(size, column.dtype)
    longer[: len(column)] = column
    return longer
