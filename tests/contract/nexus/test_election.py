"""Election: one leader at a time, and an epoch that only grows."""

from __future__ import annotations

from galaxy.driver.interfaces import Grant, LockHeld
from tests.contract.nexus.conftest import ROLE, TTL_S, World


def test_free_role_is_granted_and_then_held_against_others(world: World) -> None:
    grant = world.grant("a")
    answer = world.other.campaign(ROLE, "b", ttl_s=60.0, address="b")
    assert isinstance(answer, LockHeld)
    assert answer.owner == "a"
    assert 0 < answer.remaining_s <= 60.0
    assert grant.epoch > 0


def test_expired_lease_is_granted_to_another_owner_with_a_higher_epoch(world: World) -> None:
    first = world.grant("a", TTL_S)
    world.let_pass(TTL_S * 1.2)
    second = world.other.campaign(ROLE, "b", ttl_s=60.0, address="b")
    assert isinstance(second, Grant)
    assert second.epoch > first.epoch


def test_renewed_lease_is_held_longer_than_its_first_term(world: World) -> None:
    grant = world.grant("a", TTL_S * 12)
    for _ in range(5):
        world.let_pass(TTL_S * 3)
        assert world.nexus.renew(grant)
    assert isinstance(world.other.campaign(ROLE, "b", ttl_s=60.0, address="b"), LockHeld)


def test_expired_lease_cannot_be_renewed(world: World) -> None:
    grant = world.grant("a", TTL_S)
    world.let_pass(TTL_S * 1.2)
    assert not world.nexus.renew(grant)
    assert world.nexus.leader(ROLE) is None


def test_released_lease_is_free_at_once_and_cannot_be_renewed(world: World) -> None:
    grant = world.grant("a")
    world.nexus.release(grant)
    assert not world.nexus.renew(grant)
    assert isinstance(world.other.campaign(ROLE, "b", ttl_s=60.0, address="b"), Grant)


def test_release_by_a_former_leader_does_not_end_the_lease_of_the_present_one(world: World) -> None:
    old = world.grant("a", TTL_S)
    world.let_pass(TTL_S * 1.2)
    new = world.grant("b")
    world.nexus.release(old)
    assert world.nexus.renew(new)


def test_owner_that_campaigns_again_gets_a_new_epoch_and_its_old_grant_ends(world: World) -> None:
    first = world.grant("a")
    second = world.grant("a")
    assert second.epoch > first.epoch
    assert not world.nexus.renew(first)
    assert world.nexus.renew(second)


def test_epochs_grow_even_within_one_millisecond(world: World) -> None:
    epochs = [world.grant("a").epoch for _ in range(20)]
    assert epochs == sorted(set(epochs))


def test_roles_are_elected_independently(world: World) -> None:
    world.grant("a")
    assert isinstance(world.other.campaign("other", "b", ttl_s=60.0, address="b"), Grant)


def test_leader_is_found_by_its_role(world: World) -> None:
    assert world.nexus.leader(ROLE) is None
    grant = world.grant("a")
    view = world.other.leader(ROLE)
    assert view is not None
    assert (view.role, view.address, view.epoch) == (ROLE, f"{ROLE}@a", grant.epoch)
