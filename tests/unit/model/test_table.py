"""Indexes and sums of a table follow its rows through every change, undo and load."""

import random

from galaxy.model.base import Struct, encode, stable_hash
from galaxy.model.messages.digest import digest_of_container, digest_of_pod
from galaxy.model.messages.pod import PodState
from galaxy.model.stored.table import Table


class Coin(Struct, frozen=True, kw_only=True):
    owner: str
    number: int


def coins() -> Table[Coin]:
    return Table(
        "coins",
        Coin,
        {"owner": lambda coin: coin.owner or None},
        {"numbers": lambda coin: (coin.owner, coin.number) if coin.owner else None},
        {"divisor": lambda coin: tuple(each for each in (2, 3) if coin.number % each == 0)},
    )


def expected(table: Table[Coin]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for coin in table.values():
        if coin.owner:
            sums[coin.owner] = sums.get(coin.owner, 0) ^ coin.number
    return {owner: total for owner, total in sums.items() if total}


def test_sums_and_indexes_follow_every_change() -> None:
    dice, table = random.Random(1), coins()
    for _ in range(2000):
        key = f"c{dice.randrange(20)}"
        what = dice.randrange(10)
        if what == 0:
            table.discard()
        elif what == 1:
            table.accept()
        elif what == 2:
            table.drop(key)
        else:
            table.put(key, Coin(owner=dice.choice(["", "ann", "bob"]), number=dice.randrange(9)))
        assert dict(table.sums("numbers")) == expected(table)
        for divisor in (2, 3):
            multiples = {key for key, coin in table.items() if coin.number % divisor == 0}
            assert set(table.each("divisor", divisor)) == multiples
    assert table.is_indexed()


def test_loaded_table_has_the_sums_of_one_that_was_written() -> None:
    written, loaded = coins(), coins()
    for number in range(20):
        written.put(f"c{number}", Coin(owner="ann" if number % 2 else "bob", number=number))
    loaded.load((key, encode(coin)) for key, coin in written.items())
    assert dict(loaded.sums("numbers")) == dict(written.sums("numbers"))
    assert loaded.is_indexed()


def test_keys_that_are_missing_are_named_in_their_order() -> None:
    table = coins()
    table.put("c1", Coin(owner="ann", number=1))
    assert table.without(["c2", "c1", "c0"]) == ["c2", "c0"]


def test_digests_equal_those_of_the_general_hash_that_other_releases_compute() -> None:
    assert digest_of_container("web.7", 3) == stable_hash("container", "web.7", 3)
    for state in PodState:
        for healthy in (True, False):
            general = stable_hash("pod", "web.7", 3, 4, state, healthy)
            assert digest_of_pod("web.7", 3, 4, state, healthy) == general
