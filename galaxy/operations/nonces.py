"""Detects repeated signed requests, for as long as their signatures are valid."""

from __future__ import annotations

from collections import deque

from galaxy.errors import Unreachable


class Nonces:
    """The nonces of the last ``kept_s`` seconds by user, at most ``per_user_max`` of each user."""

    def __init__(self, kept_s: float, per_user_max: int) -> None:
        self._kept_s = kept_s
        self._per_user_max = per_user_max
        self._seen: dict[str, set[str]] = {}
        self._order: deque[tuple[float, str, str]] = deque()
        self._undecided = 0
        """Nonces at the end of ``_order`` that ``discard`` forgets."""

    def is_new(self, user: str, nonce: str, now_s: float) -> bool:
        """Record ``nonce`` and return whether ``user`` uses it for the first time.

        Raises:
            Unreachable: the user sent too many requests within ``kept_s``; a later request is accepted again.
        """
        while self._order and self._order[0][0] < now_s - self._kept_s:
            _, old_user, old = self._order.popleft()
            self._forget(old_user, old)
        seen = self._seen.setdefault(user, set())
        if nonce in seen:
            return False
        if len(seen) >= self._per_user_max:
            raise Unreachable(
                f'user "{user}" sends too much: {len(seen)} requests within {self._kept_s:g} s',
                hint="try again in a while",
            )
        self._undecided += 1
        seen.add(nonce)
        self._order.append((now_s, user, nonce))
        return True

    def accept(self) -> None:
        """Keep all nonces until they expire: their requests were answered."""
        self._undecided = 0

    def discard(self) -> None:
        """Forget the nonces since the last ``accept``: their requests were not answered."""
        for _ in range(min(self._undecided, len(self._order))):
            _, user, nonce = self._order.pop()
            self._forget(user, nonce)
        self._undecided = 0

    def _forget(self, user: str, nonce: str) -> None:
        seen = self._seen[user]
        seen.discard(nonce)
        if not seen:
            del self._seen[user]
