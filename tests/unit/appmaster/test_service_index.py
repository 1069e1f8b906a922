"""The index of services: which jobs declare one."""

from __future__ import annotations

from collections.abc import Iterator

from galaxy.appmaster.logic.service_index import ServiceIndex


def test_service_is_known_while_any_job_declares_it() -> None:
    index = ServiceIndex()
    index.set_job("a", ("web", "api", "web"))
    index.set_job("b", ("web",))
    index.set_job("a", ())
    assert ("web" in index, "api" in index) == (True, False)
    index.set_job("b", ("db",))
    assert list(index) == ["db"]


def test_job_with_other_services_leaves_those_of_others_alone() -> None:
    class Counted(str):
        """A name that counts how often it is compared or looked up."""

        looked_up = 0

        def __hash__(self) -> int:
            Counted.looked_up += 1
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            return super().__eq__(other)

    def names() -> Iterator[Counted]:
        return (Counted(f"service{number}") for number in range(1000))

    index = ServiceIndex()
    for number, name in enumerate(names()):
        index.set_job(f"job{number}", (name,))
    Counted.looked_up = 0
    index.set_job("job7", ())
    assert Counted.looked_up < 10
    assert len(list(index)) == 999
