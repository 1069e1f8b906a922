"""Resources: what containers ask for, agents have and quotas limit. One field for each.

``ResourceFields`` is the table: a field is an amount, and its annotation says everything else that
is known about the resource. Arithmetic, ceilings, quota fields, the scheduler's columns and
explanations, and the listings and helps of commands are derived from these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import astuple, replace

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium
from galaxy.units import GIB, format_bytes, format_cpu, parse_bytes, parse_count, parse_cpu

AMOUNT_MAX: Final = 2**52
"""Largest amount of anything: beyond it, 64-bit sums and exact quotients are not safe."""

Limit = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class Resource(Struct, frozen=True, kw_only=True):
    """A resource: its name, how its amounts are written, and who takes how much of it."""

    name: str
    """Its name in quotas, explanations and listings."""
    show: Callable[[int], str]
    """Writes an amount for people."""
    parse: Callable[[str], int]
    """Reads an amount as people write it; raises ValueError."""
    unit: str
    """How people write an amount, in words."""
    example: str
    media: tuple[Medium, ...] = ()
    """A volume on one of these media takes its size from this resource."""
    per_container: int = 0
    """A fixed amount that every container takes; 0 if its tasks and volumes determine the amount."""
    packed: bool = False
    """Whether placement fills agents evenly in it."""
    wide: bool = False
    """Whether listings of jobs show it with ``-o wide`` only."""
    whole: int = 1
    """Amount of the unit that usage and prices count, such as one core."""
    whole_name: str = ""
    """Name of that unit."""
    field: str = ""
    """Name of its field in ``ResourceFields``; ``RESOURCES`` has it set."""

    @property
    def title(self) -> str:
        """The name as it begins a line: ``CPU``, ``Memory``."""
        return self.name.upper() if len(self.name) <= 3 else self.name.capitalize()

    def text(self, amounts: object) -> str:
        """Write the amount of this resource in ``amounts``, which has the field."""
        return self.show(getattr(amounts, self.field))


class ResourceFields(Struct, frozen=True, kw_only=True):
    """The table of resources. A struct with amounts and other fields inherits it."""

    # fmt: off
    cpu_milli: Annotated[int, Resource(
        name="cpu", unit="cores, or millicores like 500m", example="8",
        show=format_cpu, parse=parse_cpu, packed=True, whole=1000, whole_name="core",
    )] = 0
    memory_bytes: Annotated[int, Resource(
        name="memory", unit="bytes, like 512M", example="16G",
        show=format_bytes, parse=parse_bytes, packed=True, media=(Medium.TMPFS,),
        whole=GIB, whole_name="GiB",
    )] = 0
    disk_bytes: Annotated[int, Resource(
        name="disk", unit="bytes, like 10G", example="100G",
        show=format_bytes, parse=parse_bytes, wide=True, media=(Medium.DISK, Medium.SSD),
        whole=GIB, whole_name="GiB",
    )] = 0
    containers: Annotated[int, Resource(
        name="containers", unit="a number", example="40",
        show=str, parse=parse_count, per_container=1,
    )] = 0
    # fmt: on

    @property
    def resources(self) -> Resources:
        """The amounts alone."""
        return Resources(**{field: getattr(self, field) for field in FIELDS})


class Resources(ResourceFields, frozen=True, kw_only=True):
    """An amount of every resource. Differences may be negative."""

    def __add__(self, other: Resources) -> Resources:
        return self.plus(other)

    def __sub__(self, other: Resources) -> Resources:
        return self.plus(other, -1)

    def __mul__(self, times: int) -> Resources:
        return Resources(**{field: times * getattr(self, field) for field in FIELDS})

    def plus(self, other: Resources, times: int = 1) -> Resources:
        """Return this and ``times`` the other; a negative number of times subtracts."""
        mine, theirs = astuple(self), astuple(other)
        return Resources(
            **{field: one + times * more for field, one, more in zip(FIELDS, mine, theirs, strict=True)}
        )

    def largest(self, other: Resources) -> Resources:
        """Return the larger of both amounts of each resource."""
        return Resources(
            **{
                field: max(one, two)
                for field, one, two in zip(FIELDS, astuple(self), astuple(other), strict=True)
            }
        )

    def fits(self, free: Resources) -> bool:
        """Whether ``free`` has at least this of every resource."""
        return all(asked <= have for asked, have in zip(astuple(self), astuple(free), strict=True))

    def bounded(self) -> Resources:
        """Return every amount between 0 and ``AMOUNT_MAX``: a message may contain any number."""
        return Resources(**{field: bounded(getattr(self, field)) for field in FIELDS})

    def of_one_container(self) -> Resources:
        """Return this, bounded, with the fixed amounts of one container in place of what was reported."""
        counted = {row.field: row.per_container for row in RESOURCES if row.per_container}
        return replace(self.bounded(), **counted)

    def values(self) -> tuple[int, ...]:
        """Return the amounts in the order of ``RESOURCES``."""
        return astuple(self)


def bounded(amount: int) -> int:
    """Return ``amount`` between 0 and ``AMOUNT_MAX``."""
    return min(max(int(amount), 0), AMOUNT_MAX)


def _table() -> tuple[Resource, ...]:
    rows = []
    for field, hint in get_type_hints(ResourceFields, include_extras=True).items():
        rows += [replace(row, field=field) for row in hint.__metadata__ if isinstance(row, Resource)]
    return tuple(rows)


RESOURCES: Final = _table()
"""Every resource, in the order of the fields."""

FIELDS: Final = tuple(row.field for row in RESOURCES)

ASKED: Final = tuple(row for row in RESOURCES if not row.per_container)
"""The resources that jobs ask for; the others count containers."""

NOTHING: Final = Resources()

LIMITS_EXAMPLE: Final = " ".join(f"{row.name}={row.example}" for row in RESOURCES)
"""How ceilings are written on a command line."""


def amounts_text(amounts: object) -> str:
    """Write the amounts of all resources that jobs ask for: ``cpu 500m, memory 64 MiB``."""
    return ", ".join(f"{row.name} {row.text(amounts)}" for row in ASKED if hasattr(amounts, row.field))


class _Limits(Struct, frozen=True, kw_only=True):
    """Comparisons of ``Ceiling``, whose fields are made from the table."""

    def limits(self) -> Iterator[tuple[Resource, int]]:
        """Yield each resource that is limited, with its limit."""
        for row in RESOURCES:
            limit = getattr(self, row.field)
            if limit is not None:
                yield row, limit

    def room(self, used: Resources, each: Resources) -> tuple[int, Resource] | None:
        """Return how many times ``each`` fits in addition to ``used``, and the resource that runs out first.

        None means that nothing ``each`` asks for is limited.
        """
        fits = [
            (max(0, limit - getattr(used, row.field)) // getattr(each, row.field), row)
            for row, limit in self.limits()
            if getattr(each, row.field) > 0
        ]
        return min(fits, key=lambda fit: fit[0], default=None)

    def over(self, wanted: Resources) -> Resources:
        """Return how much of ``wanted`` is beyond the limits."""
        return Resources(
            **{row.field: max(0, getattr(wanted, row.field) - limit) for row, limit in self.limits()}
        )

    def exceeded(self, before: Resources, after: Resources) -> tuple[Resource, ...]:
        """Return the resources whose amount in ``after`` exceeds the limit and the amount in ``before``.

        An amount that was over before, because the limit was lowered, may stay: only growth counts.
        """
        return tuple(
            row
            for row, limit in self.limits()
            if getattr(after, row.field) > max(limit, getattr(before, row.field))
        )


if TYPE_CHECKING:

    class Ceiling(_Limits, frozen=True, kw_only=True):
        """The most that may be asked for of each resource; None means no limit."""

        def __init__(self, **limits: int | None) -> None: ...
        def __getattr__(self, field: str) -> int | None: ...
else:
    Ceiling = msgspec.defstruct(
        "Ceiling",
        [(field, Limit | None, None) for field in FIELDS],
        bases=(_Limits,),
        namespace={"__doc__": "The most that may be asked for of each resource; None means no limit."},
        module=__name__,
        frozen=True,
        kw_only=True,
    )
