"""Nonces of steps that are undone are forgotten; all others are kept until they expire."""

from galaxy.operations.nonces import Nonces


def test_discarded_nonces_are_new_again_and_accepted_ones_are_not() -> None:
    nonces = Nonces(kept_s=100.0, per_user_max=10)
    assert nonces.is_new("ann", "kept", 1.0)
    nonces.accept()
    assert nonces.is_new("ann", "undone", 2.0)
    assert nonces.is_new("bob", "undone", 2.0)
    nonces.discard()
    assert nonces.is_new("ann", "undone", 3.0)
    assert nonces.is_new("bob", "undone", 3.0)
    assert not nonces.is_new("ann", "kept", 3.0)


def test_nonce_that_expires_in_the_step_that_is_undone_is_no_trouble() -> None:
    nonces = Nonces(kept_s=10.0, per_user_max=10)
    assert nonces.is_new("ann", "first", 1.0)
    assert nonces.is_new("ann", "second", 100.0)
    nonces.discard()
    assert nonces.is_new("ann", "second", 101.0)
