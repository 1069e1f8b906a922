"""Blocks of uids: two agents never share one while a container of either may be running."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from galaxy.container.kernel.uid_ranges import (
    BLOCK_MIN,
    UidClaim,
    claim_uids,
    conflicting_users,
    drop_unused_claims,
    list_claims,
    try_lock,
)
from galaxy.errors import HostError

LOW = 1_000_000
ROOM = (LOW, LOW + 3 * BLOCK_MIN - 1)


def agent(folder: Path, name: str, *, containers: int = 1) -> Path:
    state = folder / name
    (state / "c").mkdir(parents=True)
    for index in range(containers):
        (state / "c" / f"web.{index}_1").mkdir()
    return state


def test_agents_get_different_blocks_and_the_same_block_again(tmp_path: Path) -> None:
    one, two, claims = agent(tmp_path, "one"), agent(tmp_path, "two"), tmp_path / "claims"
    assert claim_uids(one, ROOM, 1, claims=claims) == (LOW, LOW + BLOCK_MIN - 1)
    assert claim_uids(two, ROOM, 5000, claims=claims) == (LOW + BLOCK_MIN, LOW + BLOCK_MIN + 4999)
    assert claim_uids(one, ROOM, 1, claims=claims) == (LOW, LOW + BLOCK_MIN - 1)
    assert [one.low for one in list_claims(claims)] == [LOW, LOW + BLOCK_MIN]


def test_block_of_an_ended_agent_is_kept_while_it_has_containers_and_is_free_afterwards(
    tmp_path: Path,
) -> None:
    one, two, claims = agent(tmp_path, "one"), agent(tmp_path, "two"), tmp_path / "claims"
    claim_uids(one, ROOM, 1, claims=claims)
    drop_unused_claims(claims)
    assert claim_uids(two, ROOM, 1, claims=claims)[0] == LOW + BLOCK_MIN
    (one / "c" / "web.0_1").rmdir()
    drop_unused_claims(claims)
    assert list_claims(claims) == [
        UidClaim(low=LOW + BLOCK_MIN, high=LOW + 2 * BLOCK_MIN - 1, owner=str(two.resolve()))
    ]
    assert claim_uids(agent(tmp_path, "three"), ROOM, 1, claims=claims)[0] == LOW


@pytest.mark.parametrize("lock", ["agent.lock", "launcher.lock"])
def test_block_without_containers_is_kept_while_its_agent_or_launcher_runs(tmp_path: Path, lock: str) -> None:
    one, claims = agent(tmp_path, "one", containers=0), tmp_path / "claims"
    claim_uids(one, ROOM, 1, claims=claims)
    held = os.open(one / lock, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        drop_unused_claims(claims)
        assert len(list_claims(claims)) == 1
    finally:
        os.close(held)
    drop_unused_claims(claims)
    assert list_claims(claims) == []


def test_block_is_kept_when_its_use_cannot_be_determined(tmp_path: Path) -> None:
    one, claims = agent(tmp_path, "one", containers=0), tmp_path / "claims"
    claim_uids(one, ROOM, 1, claims=claims)
    for name in ("c", "agent.lock"):
        path = one / name
        if path.exists():
            path.rmdir()
        path.symlink_to(path)  # Every access fails: too many levels of symbolic links.
        drop_unused_claims(claims)
        assert len(list_claims(claims)) == 1
        path.unlink()
    drop_unused_claims(claims)
    assert list_claims(claims) == []


def test_unreadable_claim_is_an_error_and_does_not_count_as_free(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    claim_uids(agent(tmp_path, "one"), ROOM, 1, claims=claims)
    (claims / str(LOW)).write_text("?")
    with pytest.raises(HostError, match=str(claims / str(LOW))):
        claim_uids(agent(tmp_path, "two"), ROOM, 1, claims=claims)


def test_lock_is_retried_while_another_process_holds_it_for_a_moment(tmp_path: Path) -> None:
    ours, theirs = (os.open(tmp_path / "agent.lock", os.O_CREAT | os.O_RDWR) for _ in range(2))
    try:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        assert not try_lock(ours)
        timer = threading.Timer(0.02, fcntl.flock, (theirs, fcntl.LOCK_UN))
        timer.start()
        assert try_lock(ours)
        timer.join()
    finally:
        os.close(ours)
        os.close(theirs)


def test_full_range_is_an_error_that_names_the_owners(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    one = agent(tmp_path, "one")
    assert claim_uids(one, (LOW, LOW + 99), 5000, claims=claims) == (LOW, LOW + 99)
    with pytest.raises(HostError) as refused:
        claim_uids(agent(tmp_path, "two"), (LOW, LOW + 99), 1, claims=claims)
    assert str(one.resolve()) in refused.value.details[0]
    assert "--uids" in refused.value.hint


def test_subordinate_uids_of_the_hosts_users_are_conflicts(tmp_path: Path) -> None:
    subuid = tmp_path / "subuid"
    subuid.write_text("ann:100000:65536\nbob:1000000:65536\nnonsense\n")
    assert conflicting_users((LOW, LOW + 9), subuid) == [f"{subuid}: bob:1000000:65536"]
    assert conflicting_users((LOW - 9, LOW - 1), subuid) == []
